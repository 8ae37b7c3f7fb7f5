"""What ``backends/inductor/torch_internals.py`` uses of torch 2.13 still does what is expected of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch._inductor.config
from torch import nn
from torch.fx import GraphModule

from quantfx.backends.inductor.torch_internals import (
    PostGradHook,
    compile_ahead_of_time,
    inductor_settings,
    load_package,
)
from quantfx.passes.graph.graphs import Site
from quantfx.passes.quant.lowered import set_site, site_of

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def test_settings_hold_inside_only() -> None:
    with inductor_settings(freezing=True):
        assert torch._inductor.config.freezing
    assert not torch._inductor.config.freezing


def test_a_graph_pass_sees_frozen_weights_and_sites_behind_dynamo_and_aot() -> None:
    exported = torch.export.export(nn.Linear(8, 8), (X,)).module(check_guards=False)
    assert isinstance(exported, GraphModule)
    [linear] = exported.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    set_site(linear, Site("", "linear"))
    exported.recompile()
    seen: list[GraphModule] = []
    settings = inductor_settings(freezing=True, post_grad_custom_pre_pass=PostGradHook(seen.append))
    with torch.no_grad(), settings:
        torch.compile(exported)(X)
    [module] = seen
    assert module.graph.find_nodes(op="get_attr"), "frozen weights are attributes"
    assert [site_of(node) for node in module.graph.nodes if site_of(node)] == [Site("", "linear")]
    assert PostGradHook(seen.append).uuid() is None


# In CI the packages of tests/test_package.py are: a library takes its ten seconds.
@pytest.mark.sweep
def test_a_package_is_written_and_loaded(tmp_path: Path) -> None:
    model = nn.Linear(8, 8).eval()
    with torch.no_grad():
        program = torch.export.export(model, (X,))
        written = compile_ahead_of_time(program, tmp_path / "model.pt2")
        assert written == tmp_path / "model.pt2"
        torch.testing.assert_close(load_package(written)(X), model(X))
