"""Tensors in, tensors out: the mathematics of the methods, without models or devices."""
