"""Metrics: pure functions of clips and features."""
