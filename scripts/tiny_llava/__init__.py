"""The steps of `scripts/train_tiny_llava.py`."""
