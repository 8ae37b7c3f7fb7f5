"""torch's own `quantized.*` kernels."""
