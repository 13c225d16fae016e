"""Data sets of image files: which files, which classes, what is in them."""
