"""Capture: export, canonicalize and compare with the model."""
