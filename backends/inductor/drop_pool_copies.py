"""Drop the copies before int8 max pools, which only eager runs need."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.patterns.schema import argument_value, resolve_op

_CLONE = resolve_op("aten.clone.default")
# By name: the second exists once Inductor has been loaded.
_POOLS = ("aten.max_pool2d_with_indices.default", "prims._low_memory_max_pool_with_offsets.default")


class DropPoolCopies(Pass):
    """``max_pool2d(contiguous(x)) -> max_pool2d(x)`` on integers, inside Inductor.

    Inductor's loop takes any layout and writes the layout that its reader wants.
    """

    name = "drop-pool-copies"
    optional = True

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Make every pool of integers read the source of its copy."""
        editor = Editor(module, self.name)
        for node in module.graph.find_nodes(op="call_function", target=_CLONE):
            value = node.meta.get("val")
            if (
                isinstance(value, Tensor)
                and not value.is_floating_point()
                and argument_value(node, "memory_format") == torch.contiguous_format
                and all(str(user.target) in _POOLS for user in node.users)
            ):
                editor.replace(node, node.all_input_nodes[0])
        return PassResult(stats={"dropped": editor.edits})
