"""Data sets of image files: listing files, finding classes, hashing and decoding."""
