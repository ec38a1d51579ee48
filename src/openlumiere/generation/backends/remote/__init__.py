"""Models of other servers that speak ``/v1/videos``, as one more backend."""
