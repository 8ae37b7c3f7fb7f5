"""Float rewrites in front of annotation: constants, batch norms, scales, half precision."""
