"""Backends of torch.compile that quantize, between Dynamo and the passes."""
