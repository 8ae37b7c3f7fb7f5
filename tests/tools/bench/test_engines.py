from __future__ import annotations

import pytest

from quantfx.tools.bench.engines import BASELINE, DEFAULT, ENGINES, choose_engines
from tests.refusals import refused


def test_the_baseline_comes_first_and_each_engine_once() -> None:
    chosen = choose_engines(["quantfx", "bf16", "quantfx", "fp32"])
    assert [engine.name for engine in chosen] == ["fp32", "quantfx", "bf16"]
    assert choose_engines(DEFAULT)[0] == BASELINE


@pytest.mark.parametrize(
    ("name", "hint"), [("quantfxcpp", r"did you mean 'quantfx-cpp'\?"), ("zzz", "")]
)
def test_unknown_engines_are_errors(name: str, hint: str) -> None:
    with refused("unknown-name", site=name, fix="fp32", says=hint):
        choose_engines(["fp32", name])


def test_every_engine_is_found_by_its_name() -> None:
    assert all(engine.name == name and engine.title for name, engine in ENGINES.items())
