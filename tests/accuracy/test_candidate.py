"""A recipe as a value: its text and its config."""

from __future__ import annotations

from quantfx.accuracy.candidate import Candidate
from quantfx.passes.config.config import Config


def test_text_tells_all_and_short_counts() -> None:
    plain = Candidate()
    assert plain.text == plain.short == "plain"
    mixed = Candidate((("repair", True),), "histogram").with_modes(
        {"conv2d_3": "float", "linear": "fp16", "conv2d": "float"}
    )
    assert mixed.text == "repair=True observer=histogram; float: conv2d, conv2d_3; fp16: linear"
    assert mixed.short == "repair=True observer=histogram; 2 float; 1 fp16"
    assert mixed.with_modes({}).text == "repair=True observer=histogram"


def test_the_config_adds_to_that_of_the_backend_and_goes_through_text() -> None:
    base = Config("static").op("matmul", None)
    config = Candidate((), "histogram", (("conv2d", "float"),)).config(base)
    assert config == base.activations(observer="histogram").call("conv2d", None)
    assert Config.from_toml(config.to_toml()) == config
    assert Candidate().config(base) is base
