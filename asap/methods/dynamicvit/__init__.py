"""DynamicViT, and the checkpoints it is trained in."""

from asap.methods.dynamicvit.method import DynamicViT

__all__ = ["DynamicViT"]
