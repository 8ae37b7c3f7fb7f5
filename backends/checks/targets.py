"""The instruction sets of CPUs, which decide whether int8 arithmetic is right.

Without VNNI or AMX, oneDNN multiplies u8 by s8 with ``vpmaddubsw``, which adds two products into
a saturating signed 16-bit register: full-range activations and weights give silently wrong sums.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from quantfx.patterns.errors import QuantfxError, unknown_name


@dataclass(frozen=True)
class Target:
    """An instruction set by name.

    Attributes:
        name: Name, as ``get`` takes it.
        saturates: Whether sums of two u8 x s8 products saturate at 16 bits.
    """

    name: str
    saturates: bool


TARGETS = {
    target.name: target
    for target in (
        Target("avx2", saturates=True),
        Target("avx512", saturates=True),
        Target("avx_vnni", saturates=False),
        Target("avx512_vnni", saturates=False),
        Target("amx", saturates=False),
    )
}

# Feature of torch.cpu.get_capabilities() -> target, most capable first.
_BY_CAPABILITY = (
    ("amx_int8", "amx"),
    ("avx512_vnni", "avx512_vnni"),
    ("avx_vnni", "avx_vnni"),
    ("avx512_f", "avx512"),
)

# Maps oneDNN's cap on the instruction set to the target below it (oneDNN's manual, "CPU dispatcher
# control"); values not listed here keep VNNI and AMX.
_ISA_CAPS = {
    "SSE41": "avx2",
    "AVX": "avx2",
    "AVX2": "avx2",
    "AVX2_VNNI": "avx_vnni",
    "AVX2_VNNI_2": "avx_vnni",
    "AVX512_CORE": "avx512",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE_BF16": "avx512_vnni",
    "AVX512_CORE_FP16": "avx512_vnni",
}
_ISA_CAPS_WITHOUT_BFLOAT16 = _ISA_CAPS.keys() - {"AVX512_CORE_BF16", "AVX512_CORE_FP16"}


def host() -> Target:
    """Return the target that oneDNN uses on this machine.

    ``ONEDNN_MAX_CPU_ISA`` (or its older name ``DNNL_MAX_CPU_ISA``) lowers it, as it does for
    oneDNN.
    """
    capabilities = torch.cpu.get_capabilities()
    able = [name for feature, name in _BY_CAPABILITY if capabilities.get(feature)] + ["avx2"]
    capped = _ISA_CAPS.get(_isa_cap())
    if capped is None:
        return TARGETS[able[0]]
    if capped in able:
        return TARGETS[capped]
    return TARGETS["avx2" if TARGETS[capped].saturates else able[0]]


def require_autocast(dtype: torch.dtype) -> None:
    """Refuse an autocast dtype that int8 kernels cannot be mixed with on this machine.

    Raises:
        QuantfxError: the dtype is not bfloat16, or the CPU has no bfloat16 instructions.
    """
    if dtype != torch.bfloat16:
        message = f"autocast to {dtype}: torch's int8 kernels then return bfloat16, not {dtype}."
        fix = "use torch.bfloat16, or switch autocast off around the call"
        raise QuantfxError(message, rule="autocast-dtype", site=str(dtype), fix=fix)
    if not has_bfloat16():
        raise QuantfxError(
            "autocast to bfloat16: this CPU has no bfloat16 instructions, and emulating them is "
            "far slower than float32.",
            rule="autocast-dtype",
            site=str(dtype),
            fix="switch autocast off around the call",
        )


def has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 by hardware on this machine."""
    capabilities = torch.cpu.get_capabilities()
    able = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return bool(able) and _isa_cap() not in _ISA_CAPS_WITHOUT_BFLOAT16


def _isa_cap() -> str:
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return cap.upper()


def get(name: str) -> Target:
    """Return the target called ``name``; ``"host"`` is this machine.

    Raises:
        QuantfxError: there is no target of that name; names the nearest.
    """
    if name == "host":
        return host()
    if name not in TARGETS:
        known = ["host", "any", *TARGETS]
        raise unknown_name(QuantfxError, "target", name, known)
    return TARGETS[name]


def range_policy(
    target: Target | None, *, reduce_range: bool, saturates: bool, scales: str = "pair-bounded"
) -> str:
    """Return how integer sums are kept from saturating, for reports.

    Args:
        target: None for any.
        reduce_range: Whether activations have 7 bits.
        saturates: Whether sums of the used kernels saturate on the target.
        scales: The kind of scales that weights get then.
    """
    if reduce_range:
        return "activations in [0, 127] on request"
    if target is None:
        return "full range, right on CPUs with VNNI or AMX; pass target= for others"
    if saturates:
        return f"no VNNI: 16-bit sums saturate, so weights have {scales} scales"
    return "full range: products add up in 32 bits"
