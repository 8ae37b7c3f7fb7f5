"""Whether Inductor has patterns of its own that lower q/dq graphs: torch 2.14 took them out."""

from __future__ import annotations

from torch._inductor.fx_passes import quantization


def has_qdq_patterns() -> bool:
    """Whether there is something to compare our lowering with."""
    return hasattr(quantization, "_register_quantization_weight_pack_pass")
