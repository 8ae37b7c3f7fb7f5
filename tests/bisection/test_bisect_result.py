"""What the text and the config of a bisection say."""

from __future__ import annotations

import tomllib

from quantfx.bisection.bisect_result import BisectResult
from quantfx.bisection.culprit import Culprit
from quantfx.bisection.trials import Verdict
from quantfx.passes.pipeline.permits import Permit

FAILS = Verdict("everything", False, None, ())
REWRITE = Culprit(Permit("fold-constants"), FAILS, "prepare_pipeline")
NESTED = Permit("annotate-conv", "conv2d", "true_graph_0.true_graph_1/conv2d")


def result(*culprits: Culprit) -> BisectResult:
    return BisectResult(culprits, True, (), (FAILS,), 0)


def test_the_config_is_whole_whatever_the_first_culprit_is() -> None:
    kernel = Culprit(Permit("lower", "linear", "linear_1"), FAILS, "")
    config = result(REWRITE, Culprit(NESTED, FAILS, ""), kernel).config
    read = tomllib.loads(config)
    assert read.keys() >= {"schema", "default"}
    assert [rule["call"] for rule in read["rule"]] == [NESTED.site, "linear_1"]
    assert result(REWRITE).config == ""


def test_a_slot_is_no_part_of_the_node() -> None:
    permit = Permit("share", site=f"{NESTED.site}.input")
    assert permit.node == NESTED.site
    assert Permit("share", site="cat.tensors.1").node == "cat"


def test_what_the_trials_did_not_suffice_for_is_told() -> None:
    needs = (Permit("lower", "linear", "linear_1"), Permit("lower", "linear", "linear_2"))
    whole = Culprit(NESTED, FAILS, "", needs)
    assert "only with lower: linear at linear_1" in str(result(whole))
    partial = Culprit(NESTED, FAILS, "", needs, is_smallest=False)
    text = str(result(partial))
    assert "only with some of these 2: the trials did not suffice" in text
    assert "only with lower" not in text
