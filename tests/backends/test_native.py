"""The native backend beside its kernels: options, packing, limits, what it refuses."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from dataclasses import replace
from subprocess import run
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

import quantfx
from quantfx import backends
from quantfx.backends.checks.targets import host
from quantfx.backends.quantized.quantized_tensors import WARNING
from quantfx.backends.quantized.rows import VARIANTS, native_variant
from quantfx.passes.config.config import Config
from quantfx.passes.graph.graphs import attribute
from quantfx.passes.graph.packed import Packed
from quantfx.passes.quant.lowered import lowered_nodes
from quantfx.tools.doctor.native_examples import NATIVE_EXAMPLES
from quantfx.tools.doctor.template_examples import EXAMPLES, Call
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.refusals import refused

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
# One graph of each group of the BackendConfig; tensor-info is the size of reshape(x.shape[0], ...).
GROUPS = {
    "conv": "conv_transpose2d",
    "linear": "linear_dynamic",
    "binary": "add_scalar",
    "cat": "cat",
    "default": "prelu",
    "fixed-qparams": "tanh",
    "share-qparams": "layout",
    "batch-norm": "batch_norm",
    "layer-norm": "layer_norm",
    "rnn": "lstm_dynamic",
    "embedding": "embedding_bag_weight_only_4bit",
}


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Hardswish(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def quantize(model: nn.Module, *inputs: Any, **options: Any) -> quantfx.Result:
    target = options.pop("target", "host")
    backend = backends.get("native", target=target, **options)
    return unchecked.quantize(model, inputs, backend=backend)


@pytest.mark.parametrize("group", GROUPS)
def test_one_graph_of_each_group(group: str, graph_snapshot: SnapshotAssertion) -> None:
    example = (EXAMPLES | NATIVE_EXAMPLES)[GROUPS[group]]
    backend = backends.get("native", target="any", config=example.config, weight_observer="min_max")
    template = backend.recipe.patterns[GROUPS[group]]
    assert template.group == group
    assert unchecked.convert(example.model(), example.inputs(), backend) == graph_snapshot


def test_sizes_are_not_observed() -> None:
    model = Call(lambda x: x.reshape(x.shape[0], 2, -1) * x.size(0)).eval()
    backend = backends.get("native")
    free = ({0: torch.export.Dim.DYNAMIC},)
    result = unchecked.quantize(model, (X,), backend=backend, dynamic_shapes=(free,))
    assert result.report.sites[0].kind == "reshape"
    for rows in (1, 3, 9):
        x = X[:1].repeat(rows, 1)
        assert result.module(x).shape == (rows, 2, 4)


def test_compiling_is_refused_with_the_way_out() -> None:
    with refused("not-here", site="native", says=r"result\.module"):
        quantize(nn.Linear(8, 4).eval(), X).compile()


def test_a_batch_may_be_free() -> None:
    model = seeded(conv_net)
    backend = backends.get("native")
    result = unchecked.quantize(
        model, (IMAGES,), backend=backend, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    whole = result.module(IMAGES)
    assert torch.equal(torch.cat([result.module(IMAGES[:1]), result.module(IMAGES[1:])]), whole)


def test_weights_are_packed_once_and_anew_after_a_write() -> None:
    module = quantize(nn.Linear(8, 4, bias=False).eval(), X).module
    (packed,) = (each for each in module.modules() if isinstance(each, Packed))
    calls: list[int] = []
    pack = packed.pack

    def counted(*tensors: Any) -> Any:
        calls.append(1)
        return pack(*tensors)

    packed.pack = counted  # type: ignore[method-assign]
    with torch.no_grad():
        before = module(X)
        assert torch.equal(module(X), before)
        assert len(calls) == 1
        weight: Any = attribute(module, "weight_s8")
        weight.zero_()
        assert float(module(X).abs().max()) == 0
    assert len(calls) == 2


def test_packed_modules_are_copied_and_pickled() -> None:
    module = quantize(nn.Linear(8, 4).eval(), X).module
    expected = module(X)
    assert torch.equal(copy.deepcopy(module)(X), expected)
    (packed,) = (each for each in module.modules() if isinstance(each, Packed))
    assert pickle.loads(pickle.dumps(packed)).extra_repr() == packed.extra_repr()


def test_torch_says_once_that_quantized_tensors_go_away_and_not_to_our_users() -> None:
    """In torch 2.13 it does; where this fails, see quantized_tensors.py."""
    code = (
        "import warnings, torch, quantfx\n"
        "warnings.simplefilter('error')\n"
        "x = torch.randn(4, 8)\n"
        "r = quantfx.quantize(torch.nn.Linear(8, 4).eval(), (x,), calibration=[x], "
        "backend='native', progress=False)\n"
        "r.module(x)\n"
    )
    ran = run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "deprecated" not in ran.stderr


@pytest.mark.sweep  # of torch alone
def test_torch_says_it_of_its_own() -> None:
    there = "import torch; torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)"
    ran = run([sys.executable, "-c", there], capture_output=True, text=True, check=False)
    assert len(re.findall(WARNING, ran.stderr)) == 1


def test_a_reduced_range_is_kept_to() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
    kept = quantize(model, X, reduce_range=True, observer="min_max")
    clamps = [str(node.target) for node in kept.module.graph.nodes].count("aten.clamp.default")
    assert clamps == 3
    far = X * 4
    torch.testing.assert_close(kept.module(far), kept.quantized(far), atol=0.05, rtol=0)


def test_limits_are_kept_where_sums_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with refused("no-kernel", site="linear", says="pass 127"):
        quantize(nn.Linear(8, 4).eval(), X, reduce_range=True, limits=False).module(X)
    assert quantize(nn.Linear(8, 4).eval(), X, reduce_range=True).module(X).shape == (4, 4)


@pytest.mark.skipif(host().saturates, reason="without VNNI limits are kept to")
def test_fx_graph_mode_lets_values_pass() -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    model = nn.Sequential(first, nn.ReLU(), last).eval()
    kept = quantize(model, X, reduce_range=True, observer="min_max")
    passed = quantize(model, X, reduce_range=True, observer="min_max", limits=False)
    assert "aten.clamp.default" not in [str(node.target) for node in passed.module.graph.nodes]
    near = X / 2  # Half of each observed value: rounding passes no limit there.
    assert torch.equal(kept.module(near), passed.module(near))
    assert not torch.allclose(passed.module(X * 4), kept.module(X * 4), atol=0.2)


def test_a_config_changes_results_as_it_does_inputs() -> None:
    model = seeded(conv_net)
    config = Config().activations(observer="min_max")
    backend = backends.get("native", target="any", config=config)
    prepared = backend.prepare(unchecked.capture(model, (IMAGES,)))
    kinds = {type(each).__name__ for name, each in prepared.named_children() if "post" in name}
    assert kinds == {"MinMaxObserver", "WeightObserver"}
    kept = quantize(model, IMAGES, config=Config().type(nn.Hardswish, None))
    assert "hardswish" not in {site.kind for site in kept.report.sites}


def test_known_ranges_are_not_changed_by_what_is_said_of_activations() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid()).eval()
    result = quantize(model, X, config=Config().activations(observer="min_max", quant_max=127))
    assert result.report.sites[-1].kernel == "aten.sigmoid"


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name: str) -> None:
    if native_variant(name).declared_only:
        with refused("no-kernels", site=name):
            backends.get("native", target="any", variant=name)
        return
    backend = backends.get("native", target="any", variant=name)
    names = backend.recipe.patterns.names
    assert ("layer_norm" in names) == (name in ("native", "legacy", "onednn"))
    assert ("linear_fp16" in names) == (name != "onednn")
    assert ("embedding_weight_only" in names) == (name != "onednn")
    assert ("linear_static_fp16" in names) == (name == "legacy")
    assert backend.name == ("native" if name == "native" else f"native-{name}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "onedn"}, "unknown-name: onedn"),
        ({"engine": "mkldnn"}, "unknown-name: mkldnn"),
        ({"engines": {"linears": "onednn"}}, "unknown-name: linears"),
        ({"bits": 4}, "unknown-name: bits"),
    ],
)
def test_errors_name_the_fix(options: dict[str, Any], message: str) -> None:
    with refused(message):
        backends.get("native", **options)


def test_weights_are_bounded_for_cpus_that_saturate() -> None:
    plain, old = (backends.get("native", target=name) for name in ("amx", "avx2"))
    assert plain.recipe.specs == backends.get("native", target="any").recipe.specs
    assert str(old.recipe.spec("conv_weight")).endswith("pair-bounded(blocks)")
    assert str(old.recipe.spec("linear_weight")).endswith("pair-bounded(adjacent)")
    assert str(old.recipe.spec("conv_transpose_weight")) == "s8[-64,63] symmetric"
    fbgemm = backends.get("native", target="avx2", engine="fbgemm")
    assert str(fbgemm.recipe.spec("conv_weight")) == "s8[-64,63] symmetric per-channel(0)"
    exact = backends.get("native", target="avx2", engine="qnnpack")
    # But for the floor under scales, which is for a bias in 32 bits.
    ranges = [[(name, str(spec)) for name, spec in each.recipe.specs] for each in (exact, plain)]
    assert ranges[0] == ranges[1]
    reduced = backends.get("native", target="avx2", reduce_range=True)
    assert reduced.recipe.spec("conv_weight") == plain.recipe.spec("conv_weight")


def test_full_range_is_refused_where_it_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    model = nn.Linear(8, 4).eval()
    with torch.no_grad():
        model.weight.copy_(torch.linspace(0.5, 1, 8).expand(4, 8))
    with refused("saturates", site="linear"):
        quantize(model, X, target="any").module(X)
    assert quantize(model, X).module(X).shape == (4, 4)
    assert quantize(model, X, target="any", engine="qnnpack").module(X).shape == (4, 4)


def test_a_third_party_family_comes_first() -> None:
    backend = backends.get("native")
    fewer = replace(backend, kernels=backend.kernels[:-1])
    with refused("no-kernel", site="hardswish"):
        unchecked.quantize(
            nn.Sequential(nn.Linear(8, 8), nn.Hardswish()).eval(), (X,), backend=fewer
        ).module(X)


@pytest.mark.parametrize("mode", ["weight-only", "weight-only-4bit"])
@pytest.mark.parametrize("width", [1, 7, 8])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 2)])
def test_tables_of_every_width(shape: tuple[int, ...], width: int, mode: str) -> None:
    model = seeded(lambda: nn.Embedding(20, width)).eval()
    words = torch.randint(0, 20, shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got, expected = quantize(model, words, config=mode).module(words), model(words)
    assert got.shape == expected.shape
    rows = model.weight.detach()[words]
    span = rows.amax(-1, keepdim=True) - rows.amin(-1, keepdim=True)
    steps = 255 if mode == "weight-only" else 15
    # With 4 bits, scale and offset of a row are in half precision.
    rest = (1e-5 if mode == "weight-only" else 2e-3) * rows.abs().amax(-1, keepdim=True)
    assert bool(((got - expected).abs() <= span / steps / 2 + rest).all())


@pytest.mark.parametrize("mode", ["static", "dynamic", "fp16"])
def test_a_vector_is_left_to_float_with_the_reason(mode: str) -> None:
    with refused("nothing-to-quantize", site="linear"):
        quantize(nn.Linear(8, 4).eval(), X[0], config=mode)


class Shared(nn.Module):
    """One weight, two layers, and a tensor that is read as float, too."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.one(x)
        return self.two(y) + y, torch.exp(y)


def test_shared_weights_and_readers_in_float() -> None:
    model = seeded(Shared)
    result = quantize(model, X)
    with torch.no_grad():
        for got, expected in zip(result.module(X), model(X), strict=True):
            assert float((got - expected).abs().max()) < 0.03 * float(expected.abs().max())


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("shape", [(5, 8), (1, 8), (5, 8, 3)])
def test_a_batch_norm_between_quantized_layers_takes_the_kernel_of_its_rank(
    shape: tuple[int, ...], free: bool
) -> None:
    torch.manual_seed(0)
    rows = len(shape) == 2
    first, last = (nn.Linear(8, 8), nn.Linear(8, 2)) if rows else (nn.Conv1d(8, 8, 1),) * 2
    norm = nn.BatchNorm1d(8)
    assert norm.running_mean is not None
    norm.running_mean.normal_()
    model = nn.Sequential(first, nn.ReLU(), norm, last).eval()
    x = torch.randn(shape)
    shapes = ({0: torch.export.Dim.AUTO},) if free else None
    result = unchecked.quantize(model, (x,), backend="native", dynamic_shapes=shapes)
    targets = [str(node.target) for node in result.module.graph.nodes]
    assert "quantized.batch_norm1d.default" in targets
    assert "quantized.batch_norm1d" in {site.kernel for site in result.report.sites}
    torch.testing.assert_close(result.module(x), result.quantized(x), rtol=0, atol=0.05)


@pytest.mark.parametrize("keep", ["elu", "hardswish", "layer_norm", "group_norm", "add"])
def test_what_a_rule_keeps_float_is_not_lowered(keep: str) -> None:
    """It stands between quantized tensors, as a match of its template would."""
    inner: dict[str, nn.Module] = {
        "elu": nn.ELU(),
        "hardswish": nn.Hardswish(),
        "layer_norm": nn.LayerNorm(8),
        "group_norm": nn.GroupNorm(2, 8),
        "add": Call(lambda x: x + x),
    }
    conv = nn.Conv1d(8, 8, 1)
    model = nn.Sequential(conv, inner[keep], nn.Conv1d(8, 8, 1)).eval()
    x = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    result = quantfx.quantize(
        model, (x,), calibration=[x], backend="native", config=Config().op(keep, None)
    )
    [node] = [n for n in result.module.graph.nodes if f"aten.{keep}." in str(n.target)]
    assert node.meta["val"].dtype == torch.float32
    rows = {site.site for site in result.report.sites}
    assert {call.site for _, call in lowered_nodes(result.module)} == rows
    torch.testing.assert_close(result.module(x), result.quantized(x), rtol=0, atol=0.05)


@pytest.mark.parametrize("sizes", [(1, 1, 127), (1, 1, 128), (4, 6, 7), (1, 1, 300)])
def test_volumes_of_many_positions_are_pooled_in_any_layout(sizes: tuple[int, ...]) -> None:
    """torch 2.13 refuses plain uint8 in channels_last_3d from 128 positions on, but not quint8."""
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.MaxPool3d((1, 1, 2)), nn.Conv3d(4, 2, 1)).eval()
    x = torch.randn(2, 3, *sizes, generator=torch.Generator().manual_seed(0))
    result = unchecked.quantize(model, (x,), backend="native")
    assert "max_pool3d" in " ".join(str(site.kernel) for site in result.report.sites)
    for given in (x, x.contiguous(memory_format=torch.channels_last_3d)):
        assert torch.equal(result.module(given), result.module(x))
        assert all(each.within(1, 0) for each in result.compare_sites(given))


def test_sites_behind_a_kernel_that_packs_are_compared() -> None:
    cell, last = nn.RNNCell(8, 6), nn.Linear(6, 4)
    model = nn.Sequential(nn.Linear(8, 8), cell, last).eval()
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    result = unchecked.quantize(model, (x,), backend="native", config="dynamic")
    compared = result.compare_sites()
    assert [each.kernel for each in compared] == ["quantized.linear_dynamic"] * 2
    assert all(each.within(1, 1e-4) for each in compared)


def test_a_result_without_elements_stays_float() -> None:
    """Nothing of it would ever be calibrated."""
    conv = nn.ConvTranspose3d(4, 8, (1, 3, 1), (2, 3, 1), 1, dilation=2, groups=4)
    x = torch.randn(2, 4, 13, 7, 2)
    with refused("nothing-to-quantize", site="conv_transpose3d"):
        unchecked.quantize(conv.eval(), (x,), backend="native")
