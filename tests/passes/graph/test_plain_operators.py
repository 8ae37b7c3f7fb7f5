"""Operators of ours become torch's, in every graph, and nothing else changes."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from quantfx.decoding.cache_operators import GROW, READ, to_int8
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.operator_name import operator_name
from quantfx.passes.graph.plain_operators import plain_operators

PAST = torch.randint(-127, 128, (2, 3, 4), dtype=torch.int8)
NEW, SCALE = torch.randn(2, 1, 4), torch.rand(1, 1, 4) / 50 + 1e-4


class Cache(torch.nn.Module):
    """Reads a cache, alone and with new values behind it, and grows it."""

    def forward(
        self, past: torch.Tensor, new: torch.Tensor, scale: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        return READ(past, None, scale, 1), READ(past, new, scale, 1), GROW(past, new, scale, 1)


def called(module: GraphModule) -> set[str]:
    return {
        operator_name(node)
        for _, each in all_graphs(module)
        for node in each.graph.find_nodes(op="call_function", target=READ)
        + each.graph.find_nodes(op="call_function", target=GROW)
    }


def test_the_bits_are_the_same() -> None:
    module = torch.export.export(Cache(), (PAST, NEW, SCALE)).module(check_guards=False)
    assert isinstance(module, GraphModule)
    plain = plain_operators(module)
    assert called(module) == {"quantfx.read_cache.default", "quantfx.grow_cache.default"}
    assert not called(plain)
    ours, theirs = plain(PAST, NEW, SCALE), module(PAST, NEW, SCALE)
    assert all(map(torch.equal, ours, theirs))
    assert torch.equal(ours[2][:, 3:], to_int8(NEW, SCALE))
    assert plain_operators(plain) is plain
