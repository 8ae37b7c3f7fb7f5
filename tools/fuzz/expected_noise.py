"""The noise that 8 bits cost a float graph, to compare its q/dq graph with.

It uses none of the passes: every operator of a template reads its float tensors rounded to 256
steps between their least and largest value, and a stored weight rounded to 7 bits by output channel
(like scales that keep sums from saturating). Operators that pass int8 on are rounded to the steps
of their input. A graph that amplifies noise, by a difference of equals or a division, does so here
as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import GraphModule, Node

from quantfx.passes.inputs.leaves import input_leaves, leaves_in, map_leaves
from quantfx.patterns.pattern_set import PatternSet

DRAWS = 3


def noise_power(
    graph: GraphModule, inputs: tuple[Any, ...], patterns: PatternSet, *, weight_steps: int = 63
) -> list[float]:
    """Return, for each output, the largest power of noise of several roundings.

    Args:
        graph: A captured float graph.
        inputs: Positional inputs.
        patterns: The pattern set whose operators are rounded.
        weight_steps: Steps from zero to the largest weight of a channel.
    """
    targets = {target for each in patterns.templates for target in each.targets}
    same = {target for t in patterns.templates if "out" in t.quant for target in t.targets}
    leaves = [leaf for _, leaf in input_leaves(graph, inputs, {})]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        exact = _run(fx.Interpreter(graph), leaves)
        rounded = [
            _run(_Rounding(graph, targets, same, weight_steps, dither=bool(n)), leaves)
            for n in range(DRAWS)
        ]
    return [max(power(one, draw[i]) for draw in rounded) for i, one in enumerate(exact)]


def power(exact: Tensor, other: Tensor) -> float:
    """Return the sum of the squared differences of two tensors."""
    return float((exact.double() - other.double()).square().sum())


def _run(interpreter: fx.Interpreter, leaves: list[Any]) -> list[Tensor]:
    made = interpreter.run(*leaves, enable_io_processing=False)
    return [leaf for leaf in leaves_in(made) if isinstance(leaf, Tensor)]


class _Rounding(fx.Interpreter):
    """Runs a graph with the inputs of template operators rounded."""

    def __init__(
        self,
        graph: GraphModule,
        targets: set[Any],
        same: set[Any],
        weight_steps: int,
        *,
        dither: bool,
    ) -> None:
        super().__init__(graph)
        self._weight_steps = weight_steps
        self._targets = targets
        self._same = same
        self._dither = dither

    def run_node(self, n: Node) -> Any:
        """Run one node, on rounded tensors if a template has its operator."""
        if n.target is torch.ops.higher_order.cond:
            (chosen, yes, no, operands), _ = self.fetch_args_kwargs_from_env(n)
            branch = yes if chosen else no
            rounding = (self._targets, self._same, self._weight_steps)
            return _Rounding(branch, *rounding, dither=self._dither).run(*operands)
        if n.target not in self._targets:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        stored = {id(self.env[each]) for each in n.all_input_nodes if each.op == "get_attr"}

        def rounded(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.dtype != torch.float32:
                return value
            return self._round(value, stored=id(value) in stored)

        args, kwargs = map_leaves(rounded, (args, kwargs))
        made = n.target(*args, **kwargs)  # type: ignore[operator]
        source = next((leaf for leaf in leaves_in(args) if isinstance(leaf, Tensor)), None)
        if n.target in self._same and isinstance(made, Tensor) and source is not None:
            return self._round(made, stored=False, like=source)
        return made

    def _round(self, value: Tensor, *, stored: bool, like: Tensor | None = None) -> Tensor:
        if stored and value.dim() < 2:  # a bias
            return value
        if stored:
            scale = (
                value.abs().amax(tuple(range(1, value.dim())), keepdim=True) / self._weight_steps
            )
        else:
            seen = value if like is None else like
            low, high = seen.amin().clamp(max=0), seen.amax().clamp(min=0)
            scale = (high - low) / 255
        scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
        noise = torch.rand_like(value) - 0.5 if self._dither else torch.zeros_like(value)
        return (value / scale + noise).round() * scale
