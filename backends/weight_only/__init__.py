"""Linears whose weight alone is quantized, to int8 or int4: kernels of our own."""
