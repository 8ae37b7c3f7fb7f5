"""Give one graph module the contents of another."""

from __future__ import annotations

from torch.fx import GraphModule

from quantfx.passes.graph.graphs import attribute


def take_over(target: GraphModule, source: GraphModule) -> None:
    """Replace the graph, modules and tensors of ``target`` by those of ``source``.

    Both then hold the same objects. Hooks and other attributes of ``target`` stay.
    """
    for name in [*dict(target.named_children()), *_own_tensors(target)]:
        delattr(target, name)
    tensors = [*_own_tensors(source), *dict(source.named_children())]
    for name in tensors:
        if hasattr(target, name):  # set as a plain attribute, as exported constants are
            delattr(target, name)
    for name, child in source.named_children():
        target.add_module(name, child)
    for name, parameter in source.named_parameters(recurse=False):
        target.register_parameter(name, parameter)
    for name, buffer in source.named_buffers(recurse=False):
        target.register_buffer(name, buffer)
    for node in source.graph.find_nodes(op="get_attr"):
        name = str(node.target).split(".")[0]
        if not hasattr(target, name):  # neither module nor tensor, e.g. a script object
            setattr(target, name, attribute(source, name))
    target.graph = source.graph


def _own_tensors(module: GraphModule) -> list[str]:
    parameters = dict(module.named_parameters(recurse=False))
    return [*parameters, *dict(module.named_buffers(recurse=False))]
