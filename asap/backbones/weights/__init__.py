"""Weights of backbones: finding the file, checking it, and loading it."""
