"""Containers of libraries among inputs and outputs: caches of Hugging Face's, and anybody's."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quantfx.passes.errors import CaptureError
from quantfx.passes.inputs.caches import know_caches
from quantfx.passes.inputs.leaves import describe_leaves
from tests import unchecked
from tests.refusals import refused


class Grown:
    """A cache of anybody's: keys of all tokens so far, which a model replaces."""

    def __init__(self, keys: list[Tensor]) -> None:
        self.keys = keys


def _with_keys(grown: Any) -> tuple[list[tuple[Any, Any]], None]:
    return [(pytree.GetAttrKey("keys"), grown.keys)], None


pytree.register_pytree_node(
    Grown,
    lambda grown: ([grown.keys], None),
    lambda children, _: Grown(*children),
    serialized_type_name="tests.passes.inputs.test_caches.Grown",
    flatten_with_keys_fn=_with_keys,
)


class Attends(nn.Module):
    """Keeps each token in the cache that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor, cache: Grown) -> tuple[Tensor, Grown]:
        """Return the mean over all tokens, and the cache."""
        cache.keys = [torch.cat((cache.keys[0], self.layer(x)), 1)]
        return cache.keys[0].mean(1), cache


def test_a_container_goes_in_and_comes_out_of_every_form() -> None:
    torch.manual_seed(0)
    x, dim = torch.randn(2, 1, 8), torch.export.Dim.AUTO
    shapes = {"x": None, "cache": [[{1: dim}]]}
    cache = Grown([torch.randn(2, 3, 8)])
    result = unchecked.quantize(
        Attends().eval(), (x, cache), config="weight-only", dynamic_shapes=shapes
    )
    for run in (result.module, result.compile()):
        for size in (3, 5):
            given = Grown([torch.randn(2, size, 8)])
            expected, grown = result.quantized(x, Grown(list(given.keys)))
            found, ours = run(x, given)
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(ours.keys, grown.keys)
            assert given.keys[0].shape == (2, size, 8), "the one that was given stays"


def test_shapes_are_told_by_the_children_of_a_container() -> None:
    value = {"a": torch.ones(1), "cache": Grown([torch.ones(2), torch.ones(3)])}
    told = describe_leaves(lambda path, leaf: (path, len(leaf)), "x", value)
    assert told == {
        "a": ("x['a']", 1),
        "cache": [[("x['cache'].keys[0]", 2), ("x['cache'].keys[1]", 3)]],
    }


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A library of that name, with caches; returns what was registered."""
    calls: list[str] = []
    names = ("transformers", "transformers.integrations", "transformers.integrations.executorch")
    for name in (*names, "transformers.cache_utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    executorch: Any = sys.modules[names[-1]]
    executorch.register_dynamic_cache_export_support = lambda: calls.append("DynamicCache")
    return calls


def cache_called(name: str) -> object:
    return type(name, (), {"__module__": "transformers.cache_utils"})()


def test_a_dynamic_cache_is_registered_as_its_library_does(transformers: list[str]) -> None:
    know_caches(({"cache": [cache_called("DynamicCache")]},))
    assert transformers == ["DynamicCache"]
    know_caches((torch.ones(1), "text"))
    assert len(transformers) == 1


@pytest.mark.parametrize(("name", "line"), [
    ("StaticCache", "TorchExportableModuleWithStaticCache(model"),
    ("QuantizedCache", "register_pytree_node(QuantizedCache, flatten"),
])  # fmt: skip
def test_another_cache_is_refused_with_the_line_to_write(
    transformers: list[str], name: str, line: str
) -> None:
    with refused("export-rejects", CaptureError, site=name) as caught:
        know_caches((cache_called(name),))
    assert line in str(caught.value)
    assert not transformers
