"""diffusers pipelines: text to clip."""

from openlumiere import slow_imports  # noqa: F401
