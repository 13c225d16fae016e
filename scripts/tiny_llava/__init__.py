"""The steps of `scripts/train_tiny_llava.py`."""

import asap  # noqa: F401  (before transformers: the torchvision guard)
