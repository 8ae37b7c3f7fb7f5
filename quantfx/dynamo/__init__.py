"""Backends of torch.compile that quantize: what runs between Dynamo and the passes."""
