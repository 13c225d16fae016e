"""Kinetics-400 in every layout in which people have it."""
