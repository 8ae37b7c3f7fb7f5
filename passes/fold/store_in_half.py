"""Store weights that stay float in their original half precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.fold.compute_in_float32 import NARROW_KEY
from quantfx.passes.graph.clone import set_tensor
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs, constants
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import annotation_of
from quantfx.patterns.schema import resolve_op

_TO = resolve_op("aten.to.dtype")
# Operators that pick rows: the rows are cast, not the table.
_PICKS: dict[Any, int] = {
    resolve_op("aten.embedding.default"): 0,
    resolve_op("aten.index_select.default"): 0,
}


class StoreInHalf(Pass):
    """``embedding(w_f32, i) -> to(embedding(w_bf16, i), float32)``, ``f(w_f32) -> f(to(w_bf16))``.

    Applies to matrices and tables that ``compute-in-float32`` widened and that still hold the same
    values, so the cast is exact. Vectors are too small to matter. A tensor that a planned operator
    reads directly stays float32, since its kernel packs float32.
    """

    name = "store-in-half"
    optional = True

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Narrow such tensors in every graph."""
        count = 0
        narrow: dict[str, torch.dtype] = module.meta.get(NARROW_KEY, {})
        done: dict[int, Tensor] = {}
        packed = set(_find_packed(module))
        for path, graph_module in all_graphs(module) if narrow else ():
            editor = Editor(graph_module, self.name)
            for node, value in constants(graph_module):
                name = f"{path}.{node.target}" if path else str(node.target)
                if name not in narrow or id(value) in packed:
                    continue
                if value.dtype in narrow.values():  # another node read it earlier
                    _cast(editor, node, value)
                elif (half := _narrow(value, narrow[name], done)) is not None:
                    set_tensor(graph_module, str(node.target), half)
                    _cast(editor, node, half)
                    count += 1
        return PassResult(stats={"narrowed": count})


def _find_packed(module: GraphModule) -> Iterator[int]:
    """Yield the identity of each tensor that a planned operator reads, as native's LSTM does."""
    for _, graph_module in all_graphs(module):
        for node, value in constants(graph_module):
            if any(annotation_of(user) is not None for user in node.users):
                yield id(value)


def _narrow(value: Tensor, dtype: torch.dtype, done: dict[int, Tensor]) -> Tensor | None:
    """Return the same values in ``dtype``; None for a vector, or if ``dtype`` cannot hold them."""
    if id(value) in done:
        return done[id(value)]
    if value.dim() < 2 or value.dtype != torch.float32:
        return None
    narrow = value.detach().to(dtype)
    if not torch.equal(narrow.float(), value):
        return None
    if isinstance(value, nn.Parameter):
        narrow = nn.Parameter(narrow, requires_grad=False)
    done[id(value)] = narrow
    return narrow


def _cast(editor: Editor, node: Node, half: Tensor) -> None:
    """Cast ``node`` back to float32 for its readers."""
    wide = node.meta["val"]
    node.meta["val"] = wide.to(half.dtype)
    others: list[Node] = []
    for user in list(node.users):
        place = _PICKS.get(user.target)
        if place is None or user.args[place] is not node:
            others.append(user)
            continue
        rows = user.meta["val"]
        cast = editor.call(_TO, (user, torch.float32), after=user, val=rows)
        user.meta["val"] = rows.to(half.dtype)
        for reader in [each for each in user.users if each is not cast]:
            reader.replace_input_with(user, cast)
    if others:
        cast = editor.call(_TO, (node, torch.float32), after=node, val=wide)
        for user in others:
            user.replace_input_with(node, cast)
