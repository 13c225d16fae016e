"""Weights: where they are, whether they are the right ones, and how they get into a backbone."""
