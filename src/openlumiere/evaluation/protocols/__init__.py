"""Evaluation protocols, one a command."""
