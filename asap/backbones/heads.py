"""Whether a backbone's outputs are classes. Some are features, and no label belongs to them."""

from typing import Any

from torch import nn

CLASSIFIER = "vit_large_patch14_clip_224.openai_ft_in1k"  # a CLIP with an ImageNet head


def without_classes(backbone: nn.Module) -> str | None:
    """Why a backbone's outputs are no classes, None if they are (or nothing is known of them).

    timm builds a CLIP image tower with its projection to the embedding of images and texts in the
    place of the head; only its fine-tuned weights (tags with "_ft_") have classes.
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
    """How many classes a backbone tells apart; None if its outputs are none, or are not known."""
    return None if without_classes(backbone) else getattr(backbone, "num_classes", None)
