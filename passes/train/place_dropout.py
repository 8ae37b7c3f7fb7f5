"""Put the dropouts of training back, after fake quantization."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.slots import read_slot, write_slot
from quantfx.passes.layers.lifted_dropout import LiftedDropout, dropouts_of, set_dropouts
from quantfx.passes.layers.mode_node import MODE, mode_node
from quantfx.passes.observers.observer import is_observer
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass


class PlaceDropout(GraphPass):
    """``linear(round(x)) -> linear(dropout(round(x)))`` wherever lift-dropout removed a dropout.

    A dropout whose readers read both rounded and unrounded values goes before the rounding.
    """

    name = "place-dropout"
    counts = "placed"
    breaks = frozenset({"dropout-lifted"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Place every dropout once, for all its readers, the innermost of a chain first."""
        placed = 0
        for dropout, readers in _readers(editor.module):
            _place(editor, dropout, readers)
            placed += 1
        return placed


@dataclass
class _Reader:
    node: Node
    slot: str

    @property
    def source(self) -> Node:
        return read_slot(self.node, self.slot)


def _readers(module: GraphModule) -> list[tuple[LiftedDropout, list[_Reader]]]:
    """Return the dropouts in graph order with their readers, and forget the notes."""
    found: dict[LiftedDropout, list[_Reader]] = {}
    for node in module.graph.nodes:
        for slot, dropouts in dropouts_of(node).items():
            for dropout in dropouts:
                found.setdefault(dropout, []).append(_Reader(node, slot))
        set_dropouts(node, {})
    return list(found.items())


def _place(editor: Editor, dropout: LiftedDropout, readers: list[_Reader]) -> None:
    sources = dict.fromkeys(reader.source for reader in readers)
    if len(sources) == 1:
        placed = _call(editor, dropout, next(iter(sources)), before=readers[0].node)
        for reader in readers:
            write_slot(reader.node, reader.slot, placed)
        return
    tensors = {source: _find_unobserved(source) for source in sources}
    first = min(sources)  # the tensor itself, or the first module that rounds it
    behind_it = first.next if first is tensors[first] else first
    placed = _call(editor, dropout, tensors[first], before=behind_it)
    for source, tensor in tensors.items():
        behind = placed
        if source is not tensor:
            module = editor.module.get_submodule(str(source.target))
            behind = editor.call_module(str(source.target), module, placed, after=placed)
        for reader in readers:
            if reader.source is source:
                write_slot(reader.node, reader.slot, behind)
        editor.erase_unused(source)


def _call(editor: Editor, dropout: LiftedDropout, source: Node, before: Node) -> Node:
    mode = mode_node(editor, MODE)
    if not mode < before:  # after an input of the graph
        before = mode.next
    args = (source, *dropout.p, mode)
    val = dropout.meta.get("val")
    if isinstance(dropout.target, str):
        noise = editor.module.get_submodule(dropout.target)
        node = editor.call_module(dropout.target, noise, *args, before=before, val=val)
    else:
        name = dropout.name
        node = editor.call(dropout.target, args, like=source, before=before, val=val, name=name)
    node.meta |= dropout.meta
    return node


def _find_unobserved(source: Node) -> Node:
    """Return the tensor that ``source`` observes or rounds."""
    while is_observer(source):
        source = source.all_input_nodes[0]
    return source
