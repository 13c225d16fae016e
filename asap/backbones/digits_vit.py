"""The architecture of the bundled default: a plain timm ViT for 112-pixel scenes of digits."""

from typing import Any

from timm.models.vision_transformer import VisionTransformer

ARCHITECTURE: dict[str, Any] = {
    "img_size": 112,
    "patch_size": 14,
    "embed_dim": 96,
    "depth": 12,
    "num_heads": 3,
    "num_classes": 10,
}
PREPROCESSING = {
    "input_size": (3, 112, 112),
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}
# sha256 of weights/digits_vit.safetensors
SHA256 = "69e55e51c334c65d1ae91e59357a67af227840b90e10e0cef9ada4577741fbac"


def digits_vit() -> VisionTransformer:
    """64 patches and a class token, 12 blocks, width 96: 1.4 million parameters."""
    model: Any = VisionTransformer(**ARCHITECTURE)
    model.pretrained_cfg = {"architecture": "digits_vit", "num_classes": 10, **PREPROCESSING}
    return model
