"""Repair rounding errors by statistics: weights are rounded together, and biases corrected."""
