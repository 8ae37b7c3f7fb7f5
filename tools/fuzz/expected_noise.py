"""The noise that 8 bits cost a float graph, to compare its q/dq graph with.

It uses none of the passes: every operator of a template reads its float tensors rounded to 256
steps between their least and largest value, and a stored weight rounded to 7 bits by output channel
(like scales that keep sums from saturating). Operators that pass int8 on are rounded to the steps
of their input. Recurrent layers and tables read what their kernels round: rows, by their largest
magnitude; with weights that are computed they are exact. A graph that amplifies noise, by a
difference of equals or a division, does so here as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import GraphModule, Node

from quantfx.passes.inputs.leaves import input_leaves, leaves_in, map_leaves
from quantfx.patterns.pattern_set import PatternSet
from quantfx.patterns.schema import argument_value, arguments, overload, resolve_op

DRAWS = 3
# From zero to the largest magnitude of a row; those of tables may be clipped by half a step.
ROW_STEPS, TABLE_STEPS = 127, 127.5
TABLES = tuple(
    resolve_op(f"aten.{name}")
    for name in ("embedding.default", "embedding_bag.default", "embedding_bag.padding_idx")
)


ATTENTION = resolve_op("aten.scaled_dot_product_attention.default")
# Products of two activations read one of 7 bits, like weights.
PRODUCTS = (resolve_op("aten.matmul.default"), ATTENTION)


Round = Callable[[Tensor], Tensor]

LAYERS = tuple(resolve_op(f"aten.{kind}.input") for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu"))
CELLS = tuple(
    resolve_op(f"aten.{kind}_cell.default") for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")
)


@dataclass(frozen=True)
class _Rules:
    """What is rounded: operators, those whose results are too, and steps of weights."""

    targets: set[Any]
    same: set[Any]
    weight_steps: int
    table_steps: float


def noise_power(
    graph: GraphModule,
    inputs: tuple[Any, ...],
    patterns: PatternSet,
    *,
    weight_steps: int = 63,
    table_steps: float = TABLE_STEPS,
) -> list[float]:
    """Return, for each output, the largest power of noise of several roundings.

    Args:
        graph: A captured float graph.
        inputs: Positional inputs.
        patterns: The pattern set whose operators are rounded.
        weight_steps: Steps from zero to the largest weight of a channel.
        table_steps: Steps from zero to the largest magnitude of a table's row.
    """
    targets = {target for each in patterns.templates for target in each.targets}
    same = {target for t in patterns.templates if "out" in t.quant for target in t.targets}
    rules = _Rules(targets, same, weight_steps, table_steps)
    leaves = [leaf for _, leaf in input_leaves(graph, inputs, {})]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        exact = _run(fx.Interpreter(graph), leaves)
        rounded = [_run(_Rounding(graph, rules, dither=bool(n)), leaves) for n in range(DRAWS)]
    return [max(power(one, draw[i]) for draw in rounded) for i, one in enumerate(exact)]


def power(exact: Tensor, other: Tensor) -> float:
    """Return the sum of the squared differences of two tensors."""
    return float((exact.double() - other.double()).square().sum())


def _run(interpreter: fx.Interpreter, leaves: list[Any]) -> list[Tensor]:
    made = interpreter.run(*leaves, enable_io_processing=False)
    return [leaf for leaf in leaves_in(made) if isinstance(leaf, Tensor)]


class _Rounding(fx.Interpreter):
    """Runs a graph with the inputs of template operators rounded."""

    def __init__(self, graph: GraphModule, rules: _Rules, *, dither: bool) -> None:
        super().__init__(graph)
        self._rules = rules
        self._dither = dither

    def run_node(self, n: Node) -> Any:
        """Run one node, on rounded tensors if a template has its operator."""
        if n.target is torch.ops.higher_order.cond:
            (chosen, yes, no, operands), _ = self.fetch_args_kwargs_from_env(n)
            branch = yes if chosen else no
            return _Rounding(branch, self._rules, dither=self._dither).run(*operands)
        if n.target not in self._rules.targets:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.target in TABLES or is_recurrent(n):
            return self._run_rows(n, args, kwargs)
        stored = {id(self.env[each]) for each in n.all_input_nodes if each.op == "get_attr"}

        def rounded(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.dtype != torch.float32:
                return value
            steps = 127 if n.target in PRODUCTS else 255
            return self._round(value, stored=id(value) in stored, steps=steps)

        args, kwargs = map_leaves(rounded, (args, kwargs))
        if n.target is ATTENTION:
            return self._attend(n, args, kwargs)
        made = n.target(*args, **kwargs)  # type: ignore[operator]
        source = next((leaf for leaf in leaves_in(args) if isinstance(leaf, Tensor)), None)
        if n.target not in self._rules.same or not isinstance(made, Tensor) or source is None:
            return made
        return self._round(made, stored=False, like=source) if made.is_floating_point() else made

    def _attend(self, n: Node, args: Any, kwargs: Any) -> Any:
        """Run attention with its weights rounded as well."""
        query, key, value, *others = args
        positions = torch.eye(key.shape[-2], dtype=key.dtype).expand(*key.shape[:-1], -1)
        weights = overload(n)(query, key, positions, *others, **kwargs)
        return self._round(weights, stored=False) @ value

    def _run_rows(self, n: Node, args: Any, kwargs: Any) -> Any:
        """Run what rounds rows."""
        weights = [argument_value(n, "weight")] if n.target in TABLES else weights_of(n)
        if any(each.op != "get_attr" for each in weights):
            return super().run_node(n)
        if is_recurrent(n):
            return run_rounded(n, args, kwargs, self._round_rows)
        table, *others = args
        return overload(n)(self._round_rows(table, self._rules.table_steps), *others, **kwargs)

    def _round_rows(self, rows: Tensor, steps: float = ROW_STEPS) -> Tensor:
        return self._to_steps(rows, rows.abs().amax(-1, keepdim=True) / steps)

    def _round(
        self, value: Tensor, *, stored: bool, like: Tensor | None = None, steps: int = 255
    ) -> Tensor:
        if stored and value.dim() < 2:  # a bias
            return value
        if stored:
            scale = (
                value.abs().amax(tuple(range(1, value.dim())), keepdim=True)
                / self._rules.weight_steps
            )
        else:
            seen = value if like is None else like
            low, high = seen.amin().clamp(max=0), seen.amax().clamp(min=0)
            scale = (high - low) / steps
        return self._to_steps(value, scale)

    def _to_steps(self, value: Tensor, scale: Tensor) -> Tensor:
        scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
        noise = torch.rand_like(value) - 0.5 if self._dither else torch.zeros_like(value)
        return (value / scale + noise).round() * scale


def is_recurrent(node: Node) -> bool:
    """Whether ``node`` calls a recurrent layer or a cell."""
    return node.target in (*LAYERS, *CELLS)


def weights_of(node: Node) -> list[Node]:
    """Return the weights and biases of a recurrent layer or a cell."""
    if node.target in LAYERS:
        return list(argument_value(node, "params"))
    return [argument_value(node, name) for name in ("w_ih", "w_hh")]


def run_rounded(node: Node, args: Any, kwargs: Any, rounded: Round) -> Any:
    """Run a recurrent layer or a cell with the rows of activations and weights rounded.

    The kernel rounds the input and, at each step, the state. So a layer runs step by step here, by
    torch's own operator. Unlike the kernel, a GRU keeps a part of the rounded state instead of the
    exact one, and what a projection reads is not rounded.

    Args:
        node: The call.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        rounded: Rounds each row.
    """
    target = overload(node)
    given = {name: each.default for name, each in arguments(target).items()}
    given |= dict(zip(arguments(target), args, strict=False)) | kwargs
    if target in LAYERS:
        params = [rounded(each) if each.dim() > 1 else each for each in given["params"]]
        return _run_layers(target, given | {"params": params}, rounded)
    h, *cells = _list(given["hx"])
    given |= {name: rounded(given[name]) for name in ("input", "w_ih", "w_hh")}
    return target(**given | {"hx": _states(target, [rounded(h), *cells])})


def _list(states: Any) -> list[Tensor]:
    return [states] if isinstance(states, Tensor) else list(states)


def _states(target: Any, states: list[Tensor]) -> Any:
    return states if "lstm" in str(target) else states[0]


def _run_layers(target: Any, given: dict[str, Any], rounded: Round) -> tuple[Tensor, ...]:
    x = given["input"].transpose(0, 1) if given["batch_first"] else given["input"]
    directions, layers = 2 if given["bidirectional"] else 1, given["num_layers"]
    states = _list(given["hx"])
    size = len(given["params"]) // (layers * directions)
    ends: list[list[Tensor]] = []
    for layer in range(layers):
        outs: list[Tensor] = []
        for direction in range(directions):
            at = layer * directions + direction
            params = given["params"][at * size : (at + 1) * size]
            first = [each[at : at + 1] for each in states]
            seen = x.flip(0) if direction else x
            out, end = _run_layer(target, seen, first, params, given["has_biases"], rounded)
            outs.append(out.flip(0) if direction else out)
            ends.append(end)
        x = torch.cat(outs, -1)
    made = x.transpose(0, 1) if given["batch_first"] else x
    return (made, *(torch.cat(each) for each in zip(*ends, strict=True)))


def _run_layer(
    target: Any, x: Tensor, states: list[Tensor], params: Any, has_biases: bool, rounded: Round
) -> tuple[Tensor, list[Tensor]]:
    """Return the output of each step, and the last states."""
    outs: list[Tensor] = []
    for step in torch.split(rounded(x), 1):
        hx = _states(target, [rounded(states[0]), *states[1:]])
        out, *states = target(step, hx, params, has_biases, 1, 0.0, False, False, False)
        outs.append(out)
    return torch.cat(outs), states
