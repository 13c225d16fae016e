"""A forward pass whose layout stays on the device; see `forward.py`."""
