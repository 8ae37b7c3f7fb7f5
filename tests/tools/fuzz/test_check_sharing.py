"""Groups of sites, held against what ties them."""

from __future__ import annotations

from quantfx.passes.quant.annotation import annotation_of
from quantfx.tools.fuzz.check_sharing import wrong_groups
from tests.tools.fuzz.shared import node_of, rewrite, shared


def test_groups_that_follow_from_ties_are_not_named() -> None:
    assert wrong_groups(shared()) == []


def test_a_site_in_the_group_of_a_stranger_is_named() -> None:
    module = shared()
    first, pool = annotation_of(node_of(module, "conv2d")), node_of(module, "max_pool2d")
    assert first is not None
    group = dict(first.groups)["input"]
    rewrite(pool, groups=(("self", group), ("", group)))
    found = wrong_groups(module)
    assert any("nothing ties it" in line for line in found)
    assert any(f"{pool.name}.self" in line for line in found)


def test_a_site_that_left_its_group_is_named() -> None:
    module = shared()
    pool = node_of(module, "max_pool2d")
    annotation = annotation_of(pool)
    assert annotation is not None
    rewrite(pool, groups=(("self", dict(annotation.groups)["self"]), ("", "other")))
    assert any("and tied to" in line for line in wrong_groups(module))
