from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from quantfx.tools.zoo.faults import (
    Explained,
    Explanation,
    GoodReason,
    faults_of,
    load_explained,
    unexplained,
    unused,
)
from quantfx.tools.zoo.networks import ZooError, load_networks
from quantfx.tools.zoo.row import FloatOperator, Row, Stage
from tests.refusals import refused
from tests.tools.zoo.sample import ATTENTION, EMBEDDING, TRANSPOSED, sample_row

NOTHING = Explained()


def with_decibels(**decibels: float) -> Row:
    row = sample_row()
    row.decibels.update(decibels)
    return row


def with_stage(name: str, stage: Stage) -> Row:
    row = sample_row()
    row.stages[name] = stage
    return row


def test_a_good_row_has_no_fault() -> None:
    assert faults_of(sample_row(), NOTHING) == ()
    assert faults_of(with_decibels(module=math.inf), NOTHING) == ()


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (with_decibels(auto=19.9), "auto: 19.9 dB"),
        (with_decibels(auto=math.nan), "auto: nan dB"),
        (with_decibels(loaded=-math.inf), "loaded: -inf dB"),
        (replace(sample_row(), steps=2), "kernels: a call is off by 2 steps"),
        (replace(sample_row(), error=0.01), "kernels: a call is off by 0.01 of the largest magnitude"),
        (replace(sample_row(), lowered=29), "lowered: 29 of 30 sites"),
        (replace(sample_row(), compiled=28), "compiled: 28 of 30 sites"),
        (replace(sample_row(), auto_state="int8 and float"), "auto: its state is 'int8 and float'"),
        (with_stage("file", Stage("refused", 1.0, "FileError: no")), "file: refused: FileError: no"),
        (with_stage("auto", Stage("foreign error", 1.0, "KeyError: 3")), "auto: foreign error: KeyError: 3"),
        (with_stage("auto", Stage("ended", 0.0, "it took more than 9 s")), "auto: ended: it took more than 9 s"),
        (replace(sample_row(), floats=[TRANSPOSED]), "float: aten.conv_transpose1d.default x4: no kernel computes it"),
        (replace(sample_row(), floats=[FloatOperator("mine.expert", count=2, reason="", reads_weights=False, known=False)]), "float: mine.expert x2: no template takes it"),
        (replace(sample_row(), floats=[replace(ATTENTION, reads_weights=True)]), "float: aten.bmm.default x2: no template takes it"),
    ],
)  # fmt: skip
def test_each_kind_of_fault(row: Row, fault: str) -> None:
    assert faults_of(row, NOTHING) == (fault,)


def test_products_of_activations_and_tables_may_stay_float() -> None:
    assert faults_of(replace(sample_row(), floats=[ATTENTION, EMBEDDING]), NOTHING) == ()


def test_a_good_reason_goes_with_an_operator_and_a_text() -> None:
    row = replace(sample_row(), floats=[TRANSPOSED])
    why = GoodReason("aten.conv_transpose", "no kernel", "oneDNN has none.")
    assert faults_of(row, Explained((why,))) == ()
    assert faults_of(row, Explained((replace(why, op="aten.linear"),)))
    assert faults_of(row, Explained((replace(why, text="computed"),)))


def test_an_explanation_goes_with_a_network_and_a_text() -> None:
    rows = [with_decibels(auto=12.0), sample_row("other")]
    assert unexplained(rows, NOTHING) == {"resnet18": ("auto: 12.0 dB",)}
    known = Explanation(("resnet18",), "auto: 12", "Because.")
    assert unexplained(rows, Explained((), (known,))) == {}
    elsewhere = replace(known, networks=("other",))
    assert unexplained(rows, Explained((), (elsewhere,))) == {"resnet18": ("auto: 12.0 dB",)}
    assert unused(rows, Explained((), (known, elsewhere))) == [elsewhere]
    assert unused(rows[:1], Explained((), (elsewhere,))) == []  # that network was not measured


def test_an_explanation_of_few_decibels_holds_down_to_its_least() -> None:
    known = Explanation(("resnet18",), " dB", "Because.", least=12)
    rows = [with_decibels(auto=12.0)]
    assert unexplained(rows, Explained((), (known,))) == {}
    assert unexplained([with_decibels(auto=11.9)], Explained((), (known,))) != {}
    assert unexplained([with_decibels(auto=float("nan"))], Explained((), (known,))) != {}


def test_what_is_explained_is_of_networks_of_the_zoo() -> None:
    names = {network.name for network in load_networks()}
    for explanation in load_explained().explanations:
        assert set(explanation.networks) <= names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[reasons]]", "unknown-name: reasons"),
        ("[[fault]]\nnetworks = ['a']\ntext = 'b'", "zoo-entry"),
        ("[[reason]]\nop = 'a'\ntext = 'b'\nbecause = ' '", "zoo-entry"),
    ],
)  # fmt: skip
def test_ill_formed_explanations_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "explained.toml"
    path.write_text(text, encoding="utf-8")
    with refused(message, ZooError):
        load_explained(path)
