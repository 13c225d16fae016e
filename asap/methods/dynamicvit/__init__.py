"""DynamicViT, and how its predictors are read from a checkpoint."""

from asap.methods.dynamicvit.method import DynamicViT

__all__ = ["DynamicViT"]
