"""What passes have to say, as plain data."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import get_args

import pytest

from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.remark import (
    AnyRemark,
    AskedSpecs,
    MergedSite,
    ModelRemark,
    Remark,
    RuleRemark,
    ScaleRemark,
    SharedGroup,
    TriedTemplates,
    decode_remark,
    encode_remark,
)

REMARKS: list[AnyRemark] = [
    Remark("missed", "true_graph_0", "linear", "no kernel", "aten.linear.default"),
    ModelRemark("it trains"),
    RuleRemark("module='x'", "selects nothing"),
    ScaleRemark("linear.weight", "it is zero"),
    MergedSite("", "linear_1", "linear"),
    TriedTemplates("", "linear", "static", "all", (("linear_unary", "no relu"), ("linear", ""))),
    AskedSpecs("", "linear", (("input", "act", "all"), ("", "act", ""))),
    SharedGroup("cat", ("cat", "cat.tensors.0"), (("cat", "cat.tensors.0", "cat: output"),)),
]


def test_there_is_an_example_of_each_kind() -> None:
    assert {type(each) for each in REMARKS} == set(get_args(AnyRemark))


@pytest.mark.parametrize("remark", REMARKS, ids=lambda each: type(each).__name__)
def test_a_remark_comes_back_from_text_as_what_it_was(remark: AnyRemark) -> None:
    data = json.loads(json.dumps(encode_remark(remark)))
    again = decode_remark(data)
    assert type(again) is type(remark)
    assert [getattr(again, each.name) for each in fields(again)] == [
        getattr(remark, each.name) for each in fields(remark)
    ]


def test_a_merged_site_is_a_site() -> None:
    assert MergedSite("true_graph_0", "linear").site == Site("true_graph_0", "linear")
