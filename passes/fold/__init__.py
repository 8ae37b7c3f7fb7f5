"""Float rewrites before annotation: constants, batch norms, scales, half precision."""
