"""The space-time U-Net."""

from .model import STUNet

__all__ = ["STUNet"]
