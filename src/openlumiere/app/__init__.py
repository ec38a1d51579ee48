"""A page and an API for everything that the commands do: server, queue and workers."""
