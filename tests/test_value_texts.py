"""Arguments and dynamic shapes as plain data, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch.export import AdditionalInputs, Dim, ShapesCollection

from quantfx.passes.errors import FileError
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.inputs.value_text import decode, encode
from quantfx.saving.dynamic_shapes_text import decode_shapes, encode_shapes
from tests.refusals import refused
from tests.saved_models import ROWS, mlp, quantized


def test_dynamic_shapes_mean_the_same() -> None:
    batch, length = Dim("batch", min=2, max=64), Dim("length")
    shapes = {
        "a": {0: batch, 1: None, 2: 2 * length + 1, 3: Dim.AUTO},
        "b": ((batch, Dim.STATIC), [Dim.DYNAMIC(min=3), {"x": Dim.AUTO(max=9)}, 7, length - 1]),
        "c": None,
    }
    module = quantized(mlp(), ROWS).quantized
    text = json.dumps(encode_shapes(module, ExampleInputs((), {}, shapes)))
    again = decode_shapes(json.loads(text))
    assert str(again) == str(shapes)
    assert again["a"][0] is again["b"][0][0], "one name is one dim"
    assert again["a"][2].root is again["b"][1][3].root
    with refused("no-text-form", FileError, site="dynamic_shapes"):
        encode_shapes(module, ExampleInputs((), {}, {"a": "batch"}))


def test_collected_shapes_are_written_out() -> None:
    result = quantized(mlp(), ROWS)
    make: tuple[Callable[[], Any], ...] = (ShapesCollection, AdditionalInputs)
    shapes, more = (each() for each in make)
    shapes[ROWS] = {0: Dim.AUTO}
    text = encode_shapes(result.quantized, ExampleInputs((ROWS,), {}, shapes))
    assert str(decode_shapes(text)) == "{'input': {0: DimHint(AUTO)}}"
    more.add((ROWS[:2],))
    text = encode_shapes(result.quantized, ExampleInputs((ROWS,), {}, more))
    assert str(decode_shapes(text)) == "{'input': (DimHint(DYNAMIC), None)}"


def test_arguments_come_back_as_they_were() -> None:
    values = [
        None, True, 1, -0.5, float("inf"), "x", 1 + 2j, ..., slice(1, None, 2), torch.float16,
        torch.strided, torch.channels_last, torch.device("cpu", 0), [1, (2, [3.0])], {"a": (1,), 2: None},
    ]  # fmt: skip
    again = [decode(json.loads(json.dumps(encode(value), allow_nan=False)), {}) for value in values]
    assert again == values
    assert [type(value) for value in again] == [type(value) for value in values]
    with refused("no-text-form", FileError):
        encode(object())
    with refused("unknown-name", FileError, site="int99"):
        decode({"dtype": "int99"}, {})
