"""ImageNet and its variants, in every layout in which they are published."""
