"""``/v1/videos`` and the page's routes, over FastAPI. Imports no torch."""
