"""Processes that make clips: each takes jobs from the queue, one at a time, with one resident model."""
