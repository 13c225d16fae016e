"""GPU kernels, one concept a file: a Triton kernel, its wrapper, and the same in plain torch."""
