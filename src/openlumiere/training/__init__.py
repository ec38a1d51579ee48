"""Training: one loop, one small file for each stage."""
