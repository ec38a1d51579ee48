"""Batches: a stream of items, how each is made, and who makes them: this process, or a cluster of Ray."""
