"""Heads of videos: features of the training clips on the disk, and the training on them."""
