"""Sampling and its mathematics without a network: pure functions of tensors."""
