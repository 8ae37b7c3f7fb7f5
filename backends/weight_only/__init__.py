"""Kernels for linears with only the weight quantized, to int8 or int4."""
