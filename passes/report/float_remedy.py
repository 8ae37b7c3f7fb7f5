"""Why an operator stays float if nothing mentions it, and what to do about a reason."""

from __future__ import annotations

import re

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "einsum", "tensordot")
_NATIVE_LAYERS = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
# Part of a reason -> remedy. Other reasons state their remedy, or there is none.
_REMEDIES = (
    ("kept float:", "change that rule of the config"),
    ("not float32", "quantize model.float()"),
    ("not a stored weight", "store the computed weight, e.g. by remove_parametrizations"),
)
# As ``why_float`` words it.
_OTHER_MODE = re.compile(
    r"no (\S+) template takes (\S+), only ([\w-]+).*?(\(the config's default\))?$"
)


def unmentioned(op: str) -> str:
    """Return why an operator that nothing mentions stays float."""
    return "no template takes it" if _is_of_torch(op) else "not an operator of torch's"


def remedy_of(op: str, reason: str, backend: str) -> str:
    """Return a remedy for ``op`` staying float; empty if the reason says everything."""
    name = op.split(".")[1] if op.startswith("aten.") else ""
    if other := _OTHER_MODE.search(reason):
        return _ask_for_mode(*other.groups())
    for text, remedy in _REMEDIES:
        if text in reason:
            return remedy
    if name in _NATIVE_LAYERS and backend != "native":
        return "backend='native' has kernels for it"
    if reason:
        return ""
    if name in _PRODUCTS:
        return "write it as torch.nn.functional.linear, or as matmul and select that"
    if name:
        return "give the backend a template and a kernel for it"
    if _is_of_torch(op):
        return ""
    return "write it in torch's own operators, or give the backend a template and a kernel for it"


def _ask_for_mode(mode: str, op: str, wanted: str, default: str | None) -> str:
    """Return how a config asks for the mode ``wanted`` in place of ``mode``."""
    if not default:
        return f"let that rule of the config ask for '{wanted}'"
    config = "Config()" if mode == "static" else f"Config('{mode}')"
    return f"write {config}.op('{op}', '{wanted}'), or config='{wanted}' for the whole model"


def _is_of_torch(op: str) -> bool:
    return op.startswith(("aten.", "higher_order.", "prims.", "quantized_decomposed."))
