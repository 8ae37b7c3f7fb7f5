"""Rows of a zoo that nobody measured."""

from __future__ import annotations

from quantfx.tools.zoo.row import FloatOperator, Row, Stage


def sample_row(network: str = "resnet18") -> Row:
    """Return a row without a fault."""
    stages = ("build", "quantize", "module", "compile", "file", "auto")
    return Row(
        network,
        "timm",
        "abc1234",
        parameters=11_700_000,
        stages={name: Stage("done", 2.0 + index) for index, name in enumerate(stages)},
        planned=30,
        lowered=30,
        compiled=30,
        int8_macs=0.97,
        decibels={
            "module": 31.2,
            "compiled": 31.3,
            "loaded": 31.2,
            "auto": 30.9,
            "q/dq, module": 80.0,
            "q/dq, compiled": 81.0,
        },
        steps=1,
        error=1e-6,
        auto_state="int8",
    )


TRANSPOSED = FloatOperator(
    "aten.conv_transpose1d.default", count=4, reason="no kernel computes it", reads_weights=True
)
EMBEDDING = FloatOperator(
    "aten.embedding.default", count=2, reason="not static", reads_weights=True
)
ATTENTION = FloatOperator("aten.bmm.default", count=2, reason="", reads_weights=False)
