"""Repairs of what rounding costs, from statistics: weights rounded together, and their biases."""
