"""Print an explanation as a tree that reads from top to bottom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from quantfx.passes.report.text import MOVES_VALUES

if TYPE_CHECKING:
    from quantfx.passes.report.explain.explanation import (
        Explanation,
        KernelPart,
        SharingPart,
        TensorPart,
        TensorQuantization,
    )

_WIDTH = 100
_COLORS = {"quantized": "green", "float": "yellow", "gone": "magenta", "other": "cyan"}
_MEMBERS = 8  # members of a sharing group; above, only their number is shown


def tree_of(explained: Explanation) -> Tree:
    """Return an explanation as a tree of rich."""
    title = Text.assemble((explained.site, "bold"), (f"  {explained.op}", "dim"))
    tree = Tree(title)
    tree.add(Text(explained.verdict, style=_COLORS[explained.standing]))
    if explained.module:
        of = f" ({explained.module_class})" if explained.module_class else ""
        tree.add(Text(f"module: {explained.module}{of}"))
    if explained.code is not None:
        code = explained.code
        tree.add(Text(f"code: {code.file}:{code.line}, in {code.function}: {code.text}"))
    _branch(tree, "history", (f"{step.by}: {step.text}" for step in explained.history))
    if explained.decision is not None:
        rule = f"rule {explained.decision.rule}" if explained.decision.rule else "its default"
        tree.add(Text(f"config: {explained.decision.mode}, by {rule}"))
    tries = (
        f"{'matched' if each.matched else 'no'}: {each.template}"
        f"{f', as {each.reason}' if each.reason else ''}"
        for each in explained.tries
    )
    _branch(tree, "templates tried", tries)
    if explained.match is not None:
        tree.add(Text(f"match: {explained.match.template} of {_join(explained.match.members)}"))
    _branch(tree, "tensors", map(_tensor_line, explained.tensors))
    for group in explained.sharing:
        _branch(tree, f"{group.slot or 'result'} shares its scale", _sharing_lines(group))
    if explained.kernel is not None:
        _branch(tree, "kernel", _kernel_lines(explained.kernel))
    _branch(tree, "to make it int8", explained.remedies)
    return tree


def trees_of(explained: Sequence[Explanation]) -> Iterator[Tree]:
    """Yield a tree for each explanation, and one tree for all operators that only move values."""
    moving = [each.site for each in explained if each.reason == MOVES_VALUES]
    if len(explained) == 1 or len(moving) == len(explained):
        moving = []
    for each in explained:
        if each.site not in moving:
            yield tree_of(each)
    if moving:
        yield Tree(Text(f"{', '.join(moving)}: of each, {MOVES_VALUES}"))


def text_of(trees: Iterable[Tree]) -> str:
    """Return trees as text without colour."""
    console = Console(width=_WIDTH, color_system=None, force_terminal=False)
    with console.capture() as capture:
        for tree in trees:
            console.print(tree)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _branch(tree: Tree, title: str, lines: Iterable[str]) -> None:
    found = list(lines)
    if found:
        branch = tree.add(Text(title, style="bold"))
        for line in found:
            branch.add(Text(line))


def _tensor_line(tensor: TensorPart) -> str:
    asked = f"rule {tensor.asked_by}" if tensor.asked_by else "the backend"
    name = f" as '{tensor.spec_name}'" if tensor.spec_name else ""
    reads = f" = {tensor.reads}" if tensor.slot and tensor.reads else ""
    observed = f"; observer {tensor.observer}" if tensor.observer else ""
    values = f"; {_values(tensor.qparams)}" if tensor.qparams is not None else ""
    reason = f"; {tensor.reason}" if tensor.reason else ""
    return (
        f"{tensor.slot or 'result'}{reads}: {tensor.spec}, asked for by {asked}{name}"
        f"{observed}{values}{reason}"
    )


def _values(qparams: TensorQuantization) -> str:
    if qparams.scale is None or qparams.scale_min is None or qparams.scale_max is None:
        return "range found in each call" if qparams.scheme != "cast" else "rounded"
    span = f"[{qparams.low:.4g}, {qparams.high:.4g}]"
    if qparams.channels == 1:
        return f"scale {qparams.scale:.4g}, zero point {qparams.zero_point}, range {span}"
    return (
        f"{qparams.channels} scales {qparams.scale_min:.4g} to {qparams.scale_max:.4g}, "
        f"zero point {qparams.zero_point}, range {span}"
    )


def _sharing_lines(group: SharingPart) -> Iterator[str]:
    yield f"in a group of {_join(group.members)}"
    for link in group.chain:
        yield f"{link.a} = {link.b}: {link.why}"


def _kernel_lines(kernel: KernelPart) -> Iterator[str]:
    if kernel.eager is not None:
        yield f"eager: {kernel.eager or 'missed'}{f', in {kernel.region}' * bool(kernel.region)}"
    if kernel.compiled is not None:
        yield f"compiled: {kernel.compiled or 'missed'}"
    if kernel.with_others:
        yield f"together with {_join(kernel.with_others)}"
    if kernel.reason:
        yield kernel.reason


def _join(sites: Iterable[str]) -> str:
    found = list(sites)
    more = f" and {len(found) - _MEMBERS} more" if len(found) > _MEMBERS else ""
    return ", ".join(found[:_MEMBERS]) + more
