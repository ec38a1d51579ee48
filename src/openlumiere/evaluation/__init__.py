"""Evaluation: what a clip shows, judged by measures that are themselves measured on real clips."""
