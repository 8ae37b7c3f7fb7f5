"""oneDNN's int8 kernels."""
