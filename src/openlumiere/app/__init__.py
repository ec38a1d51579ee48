"""The page, the API and the queue: `lumiere serve` and `lumiere worker`. Only the worker imports torch."""
