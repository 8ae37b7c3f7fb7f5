"""Operators that read tables or recurrent weights: their indices, weights, states and numbers."""

from __future__ import annotations

import math

from torch import Tensor

from quantfx.tools.fuzz.draft import Draft
from quantfx.tools.fuzz.operators import Operator, Texts

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
# Indices come from inputs, which nothing rounds, so that noise elsewhere reads the same rows.
INDICES = (
    "({x} * 4).long()", "({x}.abs() * 40).int()", "({x} * 4).long()[:, 0]", "{x}.argmax(-1)",
    "({x} * 4).long().transpose(0, -1)", "({x} * 4).long().flatten()[0]", "({x} > 0).long()",
)  # fmt: skip
# Offsets of bags, given the number of indices.
OFFSETS = (
    "torch.arange(0, {x}.numel(), 2)", "torch.arange(0, {x}.numel(), {x}.shape[-1])",
    "torch.tensor([0])", "torch.tensor([0, 0, {half}, {half}])",
)  # fmt: skip


def _indices(draft: Draft) -> str | None:
    x = draft.choose.choice([name for name in draft.pool if name.startswith("x")])
    return draft.say(draft.choose.choice(INDICES).format(x=x), pooled=False)


def _table(draft: Draft) -> str:
    """Return the name of a new table, or of a matrix that something else reads as well."""
    draw, stored = draft.choose, draft.matrices()
    if stored and draft.chance(0.3):
        return draw.choice(stored)
    return draft.parameter(draw.choice([1, 3, 10, 40]), draw.choice([1, 4, 7, 8, 16]))


def _embedding(draft: Draft, _: Tensor) -> Texts:
    table = _table(draft)
    return {
        "weight": table,
        "indices": f"{{x}} % {len(draft.value(table))}",
        "padding_idx": str(draft.choose.choice([-1, 0])),
    }


def _bag(draft: Draft, x: Tensor) -> Texts:
    draw, table = draft.choose, _table(draft)
    rows = len(draft.value(table))
    last, mode, weighted = draft.chance(0.3), draw.choice([0, 1, 2]), draft.chance(0.5)
    ways = OFFSETS if mode else OFFSETS[:2]  # other sizes would add up to more than was observed
    offsets = draw.choice(ways).format(x="{x}", half=x.numel() // 2)
    if "tensor" in offsets:
        offsets = draft.buffer(offsets)
    if last:  # torch's kernel reads and writes anywhere if it is another number
        offsets = f"torch.cat([{offsets}, {{x}}.new_full([1], {{x}}.numel())])"
    return {
        "weight": table,
        "indices": f"({{x}} % {rows}).flatten()",
        "offsets": f"{offsets}.to({{x}}.dtype)",
        "scale_grad_by_freq": "False",
        "mode": str(mode),
        "sparse": "False",
        "per_sample_weights": "({x} * 0.3).cos().flatten()" if weighted and not mode else "None",
        "include_last_offset": str(last),
        "padding_idx": str(draw.choice([None, 0, rows - 1])),
    }


def _state(draft: Draft, x: Tensor, shape: tuple[int, ...], batch: int) -> str:
    """Return the text of a first state.

    Args:
        draft: The model.
        x: The input.
        shape: Its shape: layers and directions, if not of a cell, then batch and width.
        batch: The dimension of ``x`` that is the batch.
    """
    dtype = "" if x.dtype.itemsize == 4 else str(x.dtype)
    free = ", ".join(map(str, (*shape[:-2], f"{{x}}.shape[{batch}]", shape[-1])))
    ways = [f"{{x}}.new_zeros({free})"] * 2
    ways += [f"{{x}}.new_full([{free}], 0.3)", f"{{x}}.mean().expand({free})"]
    ways += [
        name
        for name in draft.pool
        if draft.value(name).shape == shape and draft.value(name).dtype == x.dtype
    ]
    if draft.chance(0.2):
        learned = draft.parameter(*shape[:-2], 1, shape[-1], scale=0.5, dtype=dtype)
        return f"{learned}.expand({free})"
    return draft.choose.choice(ways)


def _weights(draft: Draft, x: Tensor, shapes: list[tuple[int, ...]], hidden: int) -> list[str]:
    dtype = "" if x.dtype.itemsize == 4 else str(x.dtype)
    scale = 1.0 / math.sqrt(hidden)
    return [draft.parameter(*shape, scale=scale, dtype=dtype) for shape in shapes]


def _layers(kind: str) -> Operator:
    gates = GATES[kind]

    def write(draft: Draft, x: Tensor) -> Texts:
        draw = draft.choose
        hidden, layers = draw.choice([1, 4, 8, 33]), draw.choice([1, 1, 2])
        width = 3 if kind == "lstm" and hidden > 3 and draft.chance(0.3) else hidden
        biases, both, batch_first = draft.chance(0.7), draft.chance(0.4), draft.chance(0.5)
        directions = 2 if both else 1
        params: list[str] = []
        for layer in range(layers):
            columns = directions * width if layer else x.shape[-1]
            shapes: list[tuple[int, ...]] = [(gates * hidden, columns), (gates * hidden, width)]
            shapes += [(gates * hidden,)] * 2 if biases else []
            shapes += [(width, hidden)] if width < hidden else []
            for _ in range(directions):
                params += _weights(draft, x, shapes, hidden)
        if both and draft.chance(0.2):  # both directions share their weights
            size = len(params) // (layers * directions)
            params = [*params[:size] * 2, *params[2 * size :]]
        at = 0 if batch_first else 1
        h = _state(draft, x, (layers * directions, x.shape[at], width), at)
        c = _state(draft, x, (layers * directions, x.shape[at], hidden), at)
        return {
            "hx": f"[{h}, {c}]" if kind == "lstm" else h,
            "params": f"[{', '.join(params)}]",
            "has_biases": str(biases),
            "num_layers": str(layers),
            "dropout": str(draw.choice([0.0, 0.5])),
            "bidirectional": str(both),
            "batch_first": str(batch_first),
        }

    return Operator((3,), write, results=3 if kind == "lstm" else 2)


def _cell(kind: str) -> Operator:
    def write(draft: Draft, x: Tensor) -> Texts:
        hidden = draft.choose.choice([1, 4, 8, 33])
        rows = GATES[kind] * hidden
        shapes: list[tuple[int, ...]] = [(rows, x.shape[-1]), (rows, hidden), (rows,), (rows,)]
        w_ih, w_hh, b_ih, b_hh = _weights(draft, x, shapes, hidden)
        biases = draft.choose.choice([(b_ih, b_hh)] * 3 + [(b_ih, "None"), ("None", b_hh)])
        if draft.chance(0.2):
            biases = ("None", "None")
        h = _state(draft, x, (x.shape[0], hidden), 0)
        c = _state(draft, x, (x.shape[0], hidden), 0)
        hx = f"[{h}, {c}]" if kind == "lstm" else h
        return {"hx": hx, "w_ih": w_ih, "w_hh": w_hh, "b_ih": biases[0], "b_hh": biases[1]}

    return Operator((2,), write, results=2 if kind == "lstm" else 1)


def write_tied_head(draft: Draft) -> None:
    """Write a product by a stored matrix that something else reads as well, such as a table."""
    stored = draft.matrices()
    if not stored:
        return
    w = draft.choose.choice(stored)
    columns = draft.value(w).shape[1]
    fit = [each for each in draft.pool if draft.value(each).shape[-1:] == (columns,)]
    fit = [each for each in fit if draft.value(each).dtype == draft.value(w).dtype]
    if fit:
        way = draft.choose.choice(["F.linear({x}, {w})", "{x} @ {w}.t()"])
        draft.say(way.format(x=draft.choose.choice(fit), w=w))


# Operators by their names in the vocabulary.
TABLES_AND_RECURRENT: dict[str, Operator] = {
    "embedding": Operator((), _embedding, source=_indices),
    "embedding_bag": Operator((), _bag, source=_indices, first_only=True),
    "lstm_padded": _layers("lstm"),
    "gru_padded": _layers("gru"),
    "rnn_padded": _layers("rnn"),
    "lstm_cell": _cell("lstm"),
    "gru_cell": _cell("gru"),
    "rnn_tanh_cell": _cell("rnn"),
    "rnn_relu_cell": _cell("rnn"),
}
