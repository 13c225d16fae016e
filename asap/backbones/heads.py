"""Checks whether a backbone's outputs are classes. Some are features, which have no labels."""

from typing import Any

from torch import nn

CLASSIFIER = "vit_large_patch14_clip_224.openai_ft_in1k"  # a CLIP with an ImageNet head


def without_classes(backbone: nn.Module) -> str | None:
    """The reason why a backbone's outputs are not classes; None if they are, or if it is unknown.

    In a CLIP image tower, timm puts the projection to the joint embedding of images and texts in
    the place of the head. Only fine-tuned weights (tags with "_ft_") have classes.
    """
    outputs = getattr(backbone, "num_classes", None)
    if outputs == 0:
        return "it was built without a head (num_classes=0) and gives features"
    known: dict[str, Any] = getattr(backbone, "pretrained_cfg", None) or {}
    is_clip = "_clip_" in (known.get("architecture") or "")
    if is_clip and "_ft_" not in (known.get("tag") or "") and outputs == known.get("num_classes"):
        return f"its {outputs} outputs are CLIP's image embedding, for which there are no labels"
    return None


def n_outputs(backbone: nn.Module) -> int | None:
    """The number of a backbone's classes; None if its outputs are not classes, or unknown."""
    return None if without_classes(backbone) else getattr(backbone, "num_classes", None)
