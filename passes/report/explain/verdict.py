"""The verdict of an explanation in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import SymFloat, SymInt, Tensor
from torch.fx import Node

from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.silent_modules import SilentModule
from quantfx.passes.quant.qdq import CAST, has_qparams
from quantfx.passes.report.accounts import Account
from quantfx.passes.report.explain.explanation import KernelPart, Kind, MatchPart
from quantfx.passes.report.text import MOVES, MOVES_VALUES, shorten

_SHOWN = 4

_NUMBERS = (int, float, SymInt, SymFloat)

_MODES = {
    "static": "int8",
    "dynamic": "int8 (ranges found in each call)",
    "fp16": "half-precision weights",
    "weight-only": "int8 weights, float arithmetic",
    "weight-only-4bit": "4-bit weights, float arithmetic",
}


def verdict_of_match(site: str, match: MatchPart, kernel: KernelPart | None) -> str:
    """Return what became of an operator that a match holds.

    Args:
        site: The operator.
        match: The match.
        kernel: What computes it.
    """
    part = "" if match.anchor == site else f" as a part of {match.anchor}"
    text = f"{_MODES.get(match.mode, match.mode)}{part} by template {match.template}"
    return f"{text}: {_reached(kernel)}" if kernel is not None else text


def verdict_of_float(reason: str, kernel: KernelPart | None) -> str:
    """Return why an operator stays float, and what computes it."""
    where = f"; a step of {kernel.region} computes it" if kernel and kernel.region else ""
    return f"float: {reason}{where}"


def verdict_of_other(kind: Kind, path: str, node: Node, made_by: str) -> str:
    """Return what a node is if it is not an operator of the model.

    Args:
        kind: Kind of the node.
        path: Path of its graph.
        node: The node itself.
        made_by: Pass that made it; empty for a node of the exported graph.
    """
    if kind in ("input", "output"):
        return f"{kind} of the graph"
    if kind == "constant":
        what = f"stored tensor '{node.target}'{f', made by {made_by}' * bool(made_by)}"
    else:
        reads = ", ".join(str(Site(path, each.name)) for each in node.all_input_nodes[:1])
        what = f"made by {made_by}, it reads {reads}"
    readers = list(dict.fromkeys(str(Site(path, each.name)) for each in readers_of(node)))
    more = f" and {len(readers) - _SHOWN} more" if len(readers) > _SHOWN else ""
    return f"{what}, for {', '.join(readers[:_SHOWN]) or 'nobody'}{more}"


def readers_of(node: Node) -> Iterator[Node]:
    """Yield the operators that read ``node``, through q/dq."""
    for user in node.users:
        if has_qparams(user) or user.target is CAST:
            yield from readers_of(user)
        else:
            yield user


def why_nothing(account: Account) -> str:
    """Return why there is nothing to quantize in an operator, or "".

    The account's reason takes precedence over the verdict that an operator only moves values.
    """
    value = account.node.meta.get("val")
    if isinstance(value, Tensor) and not value.is_floating_point():
        return f"it computes {str(value.dtype).removeprefix('torch.')}, not floats"
    if all(isinstance(each.meta.get("val"), _NUMBERS) for each in account.node.all_input_nodes):
        return "it reads no tensor"
    return MOVES_VALUES if not account.reason and shorten(account.op) in MOVES else ""


def why_silent(silent: SilentModule, readers: Sequence[str]) -> str:
    """Return why a module left no operator, as far as known.

    Args:
        silent: The module.
        readers: Sites that read tensors of it.
    """
    if silent.same_as:
        return f"it is the same module as {silent.same_as}, and its operators have that name"
    if silent.kind == "Identity":
        return "an Identity returns what it is given"
    if readers:
        return f"the model does not call it, but reads its tensors, in {', '.join(readers)}"
    return (
        f"torch.export wrote none for this {silent.kind}: the model does not call it with such "
        "inputs, or what it does is nothing in evaluation"
    )


def _reached(kernel: KernelPart) -> str:
    where = f" in {kernel.region}" if kernel.region else ""
    if kernel.status == "planned":
        return "planned; the backend has no kernels to lower it to"
    if kernel.status == "missed":
        return f"it missed its kernel, {kernel.reason}"
    if kernel.compiled == "":
        return f"kernel {kernel.eager}{where}, which the compiled module misses: {kernel.reason}"
    if kernel.status == "merged":
        return kernel.reason or "merged with its equal"
    if kernel.status == "float":
        return f"no kernel of its own, {kernel.eager}{where}"
    compiled = kernel.compiled
    other = f", compiled {compiled}" if compiled and compiled != kernel.eager else ""
    return f"kernel {kernel.eager}{where}{other}"
