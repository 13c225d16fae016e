"""ImageNet and its variants, in all layouts in which they are published."""
