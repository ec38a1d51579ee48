"""The space-time U-Net."""

from .model import STUNet

# Saved pipelines name a class by its module: name the public one, so that files may move.
STUNet.__module__ = __name__

__all__ = ["STUNet"]
