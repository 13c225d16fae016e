"""Backbones: timm's ViTs as they are, seen through an adapter that names their parts."""
