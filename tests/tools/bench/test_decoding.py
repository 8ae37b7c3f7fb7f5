"""Decoders are measured side by side: rows, tokens that stay, and wrong functions."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from quantfx.cli import main
from quantfx.tools.bench import decoding
from quantfx.tools.bench.decoding import DecoderRequest, run_decoder
from quantfx.tools.bench.workload import WorkloadError
from tests.refusals import refused

OWN = """
import torch
from tests.models.decoder import SmallDecoder

def decoder():
    return SmallDecoder().eval(), torch.arange(8).reshape(1, 8), []

def image():
    return SmallDecoder().eval(), torch.randn(1, 3, 8, 8), []
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_decoder.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def test_rows_take_turns_and_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Inductor, whose decoders tests/test_decoder.py compiles."""

    def not_compiled(graph: object, **_: object) -> object:
        return graph

    monkeypatch.setattr("torch.compile", not_compiled)
    monkeypatch.setattr("quantfx.result.Result.compile", lambda result: result.module)
    stream = StringIO()
    request = DecoderRequest("own_decoder:decoder", steps=12, rounds=3)
    rows = run_decoder(request, Console(file=stream, width=100))
    assert [row.name for row in rows] == [
        "float", "weight-only", "weight-only, 32", "weight-only-4bit",
    ]  # fmt: skip
    exact, int8, groups, int4 = rows
    assert exact.same == 1.0
    assert int8.same >= 0.75
    assert min(int8.same, groups.same) >= int4.same
    assert all(row.token_ms > 0 and row.first_ms > 0 and row.build_s > 0 for row in rows)
    assert exact.tokens_per_second == pytest.approx(1e3 / exact.token_ms)
    text = stream.getvalue()
    assert "own_decoder:decoder, a prompt of 8 tokens" in text
    assert "weight-only-4bit" in text
    assert decoding.BASELINE in text


def test_what_is_no_prompt_is_refused() -> None:
    with refused("not-a-workload", WorkloadError, site="own_decoder:image", fix="(model, tokens"):
        run_decoder(DecoderRequest("own_decoder:image"))


@pytest.mark.parametrize(
    ("request_", "option"),
    [
        (DecoderRequest("own_decoder:decoder", steps=0), "--tokens"),
        (DecoderRequest("own_decoder:decoder", rounds=0), "--rounds"),
    ],
    ids=["tokens", "rounds"],
)
def test_numbers_below_one_are_refused(request_: DecoderRequest, option: str) -> None:
    with refused("number-range", site=option):
        run_decoder(request_)


def test_a_decoder_is_measured_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "resnet50", "--decoder", "own_decoder:decoder"]) == 2
    assert "--tokens, --rounds and --threads only" in capsys.readouterr().err
