"""diffusers pipelines: text to clip."""
