"""The activations that kernels fuse: by their names in templates, and in oneDNN."""

from __future__ import annotations

from torch import nn

ACTIVATIONS: dict[str, tuple[nn.Module, str]] = {
    "relu": (nn.ReLU(), "relu"),
    "relu6": (nn.ReLU6(), "hardtanh"),
    "hardtanh": (nn.Hardtanh(-0.5, 0.25), "hardtanh"),
    "hardswish": (nn.Hardswish(), "hardswish"),
    "silu": (nn.SiLU(), "swish"),
    "leaky_relu": (nn.LeakyReLU(0.3), "leaky_relu"),
    "tanh": (nn.Tanh(), "tanh"),
    "gelu": (nn.GELU(), "gelu"),
}
