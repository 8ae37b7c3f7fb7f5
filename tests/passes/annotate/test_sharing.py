from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch

from quantfx.passes.annotate.sharing import Groups, Sharing, _Union
from quantfx.passes.errors import ShareConflict
from quantfx.passes.graph.graphs import Site
from quantfx.passes.quant.spec import QuantSpec

U8 = QuantSpec(torch.uint8, 0, 255)
S8 = QuantSpec(torch.int8, -128, 127)


def site(index: int, slot: str = "") -> Site:
    return Site("", f"n{index}", slot)


def rank(s: Site) -> tuple[int, ...]:
    return (int(s.node[1:]), len(s.slot))


def solve(*constraints: Callable[[Sharing], None]) -> Groups:
    sharing = Sharing(rank)
    for constraint in constraints:
        constraint(sharing)
    return sharing.solve()


def together(groups: Groups, *sites: Site) -> bool:
    return len({groups.representative[s] for s in sites}) == 1


def test_hard_constraints_are_transitive_and_symmetric() -> None:
    groups = solve(
        lambda s: s.same(site(2), site(1), "a"),
        lambda s: s.same(site(2), site(3), "b"),
        lambda s: s.require(site(3), U8, "c"),
    )
    assert together(groups, site(1), site(2), site(3))
    assert groups.representative[site(3)] == site(1), "the first site represents the group"
    assert groups.specs == {site(1): U8}


def test_a_cycle_is_harmless() -> None:
    groups = solve(
        lambda s: s.same(site(1), site(2), "x shares with view"),
        lambda s: s.same(site(2), site(1), "view shares with x"),
        lambda s: s.require(site(1), U8, "a"),
    )
    assert together(groups, site(1), site(2))


def test_readers_of_one_tensor_share_if_their_specs_agree() -> None:
    groups = solve(
        *(lambda s, i=i: s.require(site(i, "x"), U8, "a") for i in (1, 2)),
        lambda s: s.require(site(3, "x"), S8, "a"),
        *(lambda s, i=i: s.flows(site(i, "x"), site(0)) for i in (1, 2, 3)),
    )
    assert together(groups, site(1, "x"), site(2, "x"))
    assert not together(groups, site(1, "x"), site(3, "x"))
    assert not together(groups, site(0), site(1, "x")), "a float producer stays out"


def test_a_reader_shares_with_the_output_it_reads_if_specs_agree() -> None:
    def constraints(spec: QuantSpec) -> list[Callable[[Sharing], None]]:
        return [
            lambda s: s.require(site(0), U8, "out"),
            lambda s: s.require(site(1, "x"), spec, "in"),
            lambda s: s.flows(site(1, "x"), site(0)),
        ]

    assert together(solve(*constraints(U8)), site(0), site(1, "x"))
    assert not together(solve(*constraints(S8)), site(0), site(1, "x")), "an explicit requantize"


def test_a_constrained_site_without_spec_adopts_its_neighbours() -> None:
    groups = solve(
        lambda s: s.require(site(0), U8, "out"),
        lambda s: s.same(site(1), site(1, "x"), "view: same tensor"),
        lambda s: s.flows(site(1, "x"), site(0)),
    )
    assert together(groups, site(0), site(1), site(1, "x"))
    assert set(groups.specs.values()) == {U8}


def test_a_conflict_prints_the_whole_chain() -> None:
    fixed = replace(U8, observer="min_max")
    with pytest.raises(ShareConflict) as error:
        solve(
            lambda s: s.require(site(1), fixed, "sigmoid: fixed qparams"),
            lambda s: s.same(site(2, "x"), site(1), "pool reuses its producer's"),
            lambda s: s.same(site(2), site(2, "x"), "max_pool2d: output = x"),
            lambda s: s.same(site(9), site(2), "a longer way"),
            lambda s: s.same(site(3), site(2), "view: same tensor"),
            lambda s: s.require(site(3), S8, "user annotation"),
        )
    assert str(error.value).splitlines() == [
        "n1 and n3 must share qparams but disagree:",
        "  n1: u8[0,255] affine   <- sigmoid: fixed qparams",
        "  = n2.x   (pool reuses its producer's)",
        "  = n2   (max_pool2d: output = x)",
        "  = n3   (view: same tensor)",
        "  n3: s8[-128,127] affine   <- user annotation",
        "give both the same spec, or keep one of the operators on the way in float",
    ]


def test_the_result_does_not_depend_on_the_order_of_constraints() -> None:
    generator = random.Random(0)
    constraints: list[Callable[[Sharing], None]] = []
    for i in range(40):
        constraints.append(lambda s, i=i: s.require(site(i, "x"), U8 if i % 3 else S8, "r"))  # type: ignore[misc]
        constraints.append(lambda s, i=i: s.flows(site(i, "x"), site(i // 2)))  # type: ignore[misc]
        if i % 3:
            constraints.append(lambda s, i=i: s.same(site(i), site(i, "x"), "s"))  # type: ignore[misc]
    expected = solve(*constraints)
    for _ in range(20):
        generator.shuffle(constraints)
        assert solve(*constraints) == expected


def test_many_consumers_and_long_chains_are_near_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in look-ups of the union-find, which do not depend on the machine."""
    looked = [0]

    class Counted(dict[Site, Site]):
        def __getitem__(self, key: Site) -> Site:
            looked[0] += 1
            return super().__getitem__(key)

    def initialise(self: _Union, index: Mapping[Site, int]) -> None:
        self._index = index
        self._parent = Counted({s: s for s in index})

    monkeypatch.setattr(_Union, "__init__", initialise)

    def look_ups(count: int) -> int:
        sharing = Sharing(rank)
        for i in range(1, count):
            sharing.require(site(i, "x"), U8, "r")
            sharing.flows(site(i, "x"), site(0))
            sharing.same(site(i), site(i - 1), "chain")
        looked[0] = 0
        groups = sharing.solve()
        assert together(groups, *(site(i) for i in range(count)))
        return looked[0]

    assert look_ups(16000) < 9 * look_ups(2000)
