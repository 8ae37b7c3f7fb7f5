"""Compare each kernel call with the float arithmetic that it stands for, on identical inputs.

The lowered graph runs once. Each call's inputs also go through the part of the q/dq graph that the
call replaced, so a difference comes from that site and not from earlier sites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.graph.clone import HoldsGraph
from quantfx.passes.graph.graphs import Site, referent
from quantfx.passes.inputs.leaves import input_leaves
from quantfx.passes.quant.lowered import Lowered, lowered_of, region_of
from quantfx.passes.quant.qdq import dequantizes, tensor_qparams
from quantfx.patterns.schema import schema_arguments


@dataclass(frozen=True)
class SiteComparison:
    """One kernel call against its reference.

    Attributes:
        site: The anchor in the q/dq graph.
        kernel: The kernel that was called.
        steps: Largest difference of integer results, in quantization steps; None for float results.
        error: Largest difference of float results, relative to the largest magnitude; None for
            integer results.
    """

    site: Site
    kernel: str
    steps: int | None = None
    error: float | None = None

    def within(self, steps: int, error: float) -> bool:
        """Whether the call is as exact as requested."""
        return (self.steps or 0) <= steps and (self.error or 0.0) <= error


def compare_sites(
    reference: GraphModule, lowered: GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[SiteComparison, ...]:
    """Return a comparison for each kernel call in the top graph, in its order.

    Calls inside control flow are skipped: they run only when their branch does. Kernels that
    quantize by themselves, such as recurrent layers, are skipped too: the q/dq graph has the float
    operator there.

    Args:
        reference: The q/dq graph as the lowering pass found it.
        lowered: The graph after lowering and later fusing passes.
        args: Positional inputs.
        kwargs: Keyword inputs.
    """
    found: list[SiteComparison] = []
    nodes = {node.name: node for node in reference.graph.nodes}

    def compare(call: Lowered, result: Any, values: Mapping[str, Any]) -> None:
        made = _run(reference, [nodes[name] for name in call.covers], values)
        expected = made[call.output]
        if not isinstance(result, Tensor):
            found.append(_worst(call, result, expected))
            return
        if result.is_quantized:
            expected = _in_qparams_of(result, nodes[call.output], made)
            result = result.int_repr()
        found.append(_comparison(call, result, expected))

    with torch.no_grad():
        _Recorder(lowered, compare).run_with(args, kwargs)
    return tuple(found)


def _worst(call: Lowered, results: Sequence[Tensor], expected: Sequence[Tensor]) -> SiteComparison:
    """Compare several results; for an embedding bag only the sums, which are float."""
    compared = [
        _comparison(call, result, wanted)
        for result, wanted in zip(results, expected, strict=True)
        if result.is_floating_point()
    ]
    return max(compared, key=lambda each: each.error or 0.0)


def _comparison(call: Lowered, result: Tensor, expected: Tensor) -> SiteComparison:
    if not result.numel():
        return SiteComparison(call.site, call.kernel, 0)
    if result.is_floating_point():
        difference = float((result.double() - expected.double()).abs().max())
        largest = float(expected.double().abs().max())
        error = difference / max(largest, torch.finfo(torch.float32).tiny)
        return SiteComparison(call.site, call.kernel, error=error)
    steps = int((result.int() - expected.int()).abs().max())
    return SiteComparison(call.site, call.kernel, steps)


def _in_qparams_of(result: Tensor, quantize: Node, values: Mapping[str, Tensor]) -> Tensor:
    """Return the result of ``quantize``, but in the qparams that ``result`` carries.

    Some kernels find the qparams of their result themselves, and the graph then has others.
    """
    asked = tensor_qparams(quantize)
    scale, zero_point = result.q_scale(), result.q_zero_point()
    if (scale, zero_point) == (asked.scale, asked.zero_point):
        return values[quantize.name]
    exact = values[quantize.all_input_nodes[0].name]
    info = torch.iinfo(asked.dtype)
    return torch.round(exact / scale + zero_point).clamp(info.min, info.max).to(asked.dtype)


class _Recorder(fx.Interpreter):
    """Runs the lowered graph and keeps the values of all q/dq graph nodes that it computes."""

    def __init__(
        self,
        module: GraphModule,
        compare: Callable[[Lowered, Any, Mapping[str, Any]], None],
    ) -> None:
        super().__init__(module)
        self._called = module
        self._compare = compare
        self._values: dict[str, Any] = {}

    def run_with(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Run for inputs in the calling convention of the module."""
        leaves = [leaf for _, leaf in input_leaves(self._called, args, dict(kwargs))]
        self.run(*leaves, enable_io_processing=False)

    def run_node(self, n: Node) -> Any:
        """Run one node; compare it if it is a kernel call that stands for sites."""
        result = super().run_node(n)
        region = referent(self._called, n) if region_of(n) else None
        if isinstance(region, HoldsGraph):
            self._values |= region.values_inside(self.fetch_args_kwargs_from_env(n)[0])
            for site in region_of(n):
                if site.output in self._values:
                    self._compare(site, self._values[site.output], self._values)
        call = lowered_of(n)
        if call is not None:
            if call.covers:
                self._compare(call, result, self._values)
            self._values[call.output] = result  # also for a kernel that packs: later sites read it
        self._values[n.name] = result
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give a kernel that adds a summand a copy of it, laid out as compilers do.

        The kernel may overwrite the summand, and torch's linear assumes a contiguous one, even in
        4D.
        """
        if isinstance(target, OpOverload):
            summands = [
                bool(each.alias_info and each.alias_info.is_write)
                or (target.namespace == "onednn" and each.name == "other")
                for each in schema_arguments(target)
            ]
            images = "conv" in str(target)
            args = tuple(
                _laid_out(value, images) if index < len(summands) and summands[index] else value
                for index, value in enumerate(args)
            )
        return super().call_function(target, args, kwargs)


def _laid_out(value: Any, images: bool) -> Any:
    if not isinstance(value, Tensor):
        return value
    last = images and value.dim() == 4
    return value.clone(memory_format=torch.channels_last if last else torch.contiguous_format)


def _run(module: GraphModule, nodes: list[Node], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of ``nodes``, each an operator, given those of the nodes before them.

    A node that no call covers and that is not given is computed, too: what several calls read, and
    the lowered graph has no more, such as an unpacked weight.
    """
    made: dict[str, Any] = {}

    def value(node: Node) -> Any:
        if node.op == "get_attr":
            return referent(module, node)
        if node.name not in made and node.name in values:
            return values[node.name]
        return compute(node)

    def compute(node: Node) -> Any:
        if node.name in made:
            return made[node.name]
        carrying = value(node.all_input_nodes[0]) if dequantizes(node) else None
        if isinstance(carrying, Tensor) and carrying.is_quantized:
            made[node.name] = carrying.dequantize()
        else:
            target: Any = node.target
            args: Any = map_arg(node.args, value)
            made[node.name] = target(*args, **map_arg(node.kwargs, value))
        return made[node.name]

    for node in nodes:
        compute(node)
    return made
