"""Which engine computes what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantfx.backends.quantized.engines import ENGINES, Engines, Transposed, engines_of
from tests.refusals import refused

RULE = Engines()
SAME = Transposed(inputs=8, outputs=8, kernel=(3, 3), extent=(3, 3), stride=(2, 2), padded=False)


def test_linears_of_many_rows_are_onednns() -> None:
    assert RULE.linear("linear", 1) == RULE.linear("linear", None) == "fbgemm"
    assert RULE.linear("linear", 128) == "onednn"
    assert Engines.of("qnnpack").linear("linear", 128) == "qnnpack"


def test_convolutions_of_one_channel_a_group_are_not_onednns_where_it_is_wrong() -> None:
    assert RULE.conv(8, saturating=False) == "onednn"
    assert RULE.conv(1, saturating=False) == "fbgemm"
    assert RULE.conv(1, saturating=True) == "onednn"
    assert Engines.of("onednn").conv(1, saturating=False) is None
    assert Engines.of("fbgemm").conv(1, saturating=False) == "fbgemm"


@pytest.mark.parametrize(
    ("shape", "engine"),
    [
        (SAME, "onednn"),
        (replace(SAME, outputs=16), "fbgemm"),
        (replace(SAME, padded=True), "fbgemm"),
        (replace(SAME, stride=(4, 4)), "fbgemm"),
        (replace(SAME, outputs=16, kernel=(2, 2), extent=(2, 2)), None),
        (replace(SAME, outputs=12, kernel=(2, 2), extent=(2, 2)), "fbgemm"),
    ],
)
def test_transposed_convolutions(shape: Transposed, engine: str | None) -> None:
    assert RULE.conv_transpose(shape) == engine


def test_what_the_user_chooses() -> None:
    assert Engines.of("x86") == RULE
    assert Engines.of(None, {"linear": "onednn"}).chosen == (("linear", "onednn"),)
    assert Engines.of("onednn").get("linear_fp16") is None  # it has none there
    with refused("unknown-name", site="onedn", fix="onednn"):
        Engines.of("onedn")
    with refused("unknown-name", site="convs"):
        Engines.of(None, {"convs": "onednn"})
    with refused("unknown-name", site="qnnpack", says="'linear_fp16'"):
        Engines.of(None, {"linear_fp16": "qnnpack"})


def test_what_saturates() -> None:
    assert RULE.saturates == "neighbours"
    assert Engines.of("fbgemm").saturates == "any"
    assert Engines.of("qnnpack").saturates == "none"
    assert Engines.of(None, {"conv": "qnnpack"}).saturates == "neighbours"


def test_engines_of_kernels() -> None:
    assert engines_of("quantized.conv2d") == ENGINES
    assert engines_of("quantized.linear_dynamic_fp16") == ("x86", "fbgemm")
    assert "qnnpack" not in engines_of("quantized.conv_transpose3d")
    assert engines_of("quantized.add") == ()
