"""The chain of reasons by which sites share their scale."""

from __future__ import annotations

from tests.passes.report.explain.explained import folded, shared


def test_the_chain_leads_from_the_slot_to_the_first_member() -> None:
    [layer] = shared().explain("last")[:1]
    [group] = layer.sharing
    assert group.name == "cat"
    assert group.members == (
        "cat",
        "cat.tensors.0",
        "cat.tensors.1",
        "max_pool2d",
        "max_pool2d.self",
        "conv2d_2.input",
    )
    assert [(link.a, link.b) for link in group.chain] == [
        ("conv2d_2.input", "max_pool2d"),
        ("max_pool2d", "max_pool2d.self"),
        ("max_pool2d.self", "cat"),
    ]
    assert group.chain[0].why == "conv2d_2.input reads max_pool2d, with an equal spec"
    assert group.chain[1].why == "max_pool2d: output = self", "which template tied them"
    assert len(group.links) == len(group.members) - 1


def test_the_first_member_needs_no_chain_and_a_tensor_alone_no_group() -> None:
    [cat] = shared().explain("cat")
    assert [(each.slot, len(each.chain)) for each in cat.sharing] == [
        ("tensors.0", 1),
        ("tensors.1", 2),
        ("", 0),
    ]
    scales = {each.qparams.scale for each in cat.tensors if each.qparams is not None}
    assert len(scales) == 1
    assert folded().explain("conv")[0].sharing == ()
