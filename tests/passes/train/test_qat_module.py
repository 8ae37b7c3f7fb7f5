"""What is prepared for training is a module: flags, state, copies, schedules, gradients."""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from quantfx.backends.x86 import x86
from quantfx.passes.config.config import Config
from quantfx.passes.errors import CalibrationError, PipelineError, SpecError
from quantfx.passes.layers.mode_node import Mode
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observers.fake_quantize import FakeQuantize
from quantfx.passes.observers.learned_fake_quantize import LearnedFakeQuantize
from quantfx.passes.train.qat_module import QatModule
from quantfx.passes.train.qat_schedule import QatSchedule
from quantfx.tools.models.seeded import seeded
from tests.models.normed import norm2d, normed, round_nothing
from tests.refusals import refused
from tests.unchecked import capture

GENERATOR = torch.Generator().manual_seed(0)


class Net(nn.Module):
    """Two normed convolutions with a shortcut, a dropout and a classifier; reads N x 3 x 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 8, 3), norm2d(8)
        self.second, self.second_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), norm2d(8)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first_norm(self.first(x)).relu()
        y = (self.second_norm(self.second(y)) + y).relu()
        logits: Tensor = self.head(self.drop(y.mean((2, 3))))
        return logits


X = torch.randn(4, 3, 8, 8, generator=GENERATOR)


@functools.cache
def captured() -> GraphModule:
    return capture(seeded(Net), (X,), training=True)


def prepared(*, learn_scales: bool = False, config: Config | None = None) -> QatModule:
    backend = x86() if config is None else x86().with_config(config)
    return backend.prepare(captured(), qat=True, learn_scales=learn_scales)


def batches(count: int, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        x = torch.randn(4, 3, 8, 8, generator=generator)
        yield x.to(dtype), torch.randint(0, 5, (4,), generator=generator)


def train(module: nn.Module, data: list[tuple[Tensor, Tensor]], seed: int = 0) -> list[float]:
    """Train with momentum; return the losses."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    return [step(module, optimizer, *batch, seed + at) for at, batch in enumerate(data)]


def step(
    module: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, seed: int
) -> float:
    torch.manual_seed(seed)  # of the dropouts
    optimizer.zero_grad()
    loss = F.cross_entropy(module(x), y)
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=str
)
@pytest.mark.parametrize("scaling", [False, True])
def test_loss_curves_without_rounding_are_the_float_models(
    dtype: torch.dtype, tolerance: float, scaling: bool
) -> None:
    model = seeded(Net).train().to(dtype)
    module = x86().prepare(capture(model, (X.to(dtype),), training=True), qat=True)
    if scaling:
        round_nothing(module)
    else:
        module.fake_quantize(False)
    data = list(batches(20, dtype))
    ours, theirs = train(module, data), train(model, data)
    assert ours == pytest.approx(theirs, rel=tolerance)
    assert max(theirs) - min(theirs) > 0.1  # it does train
    for key, value in model.state_dict().items():
        assert torch.allclose(module.state_dict()[key], value, rtol=tolerance * 10, atol=tolerance)


def test_rounding_changes_the_curve_and_every_parameter_trains() -> None:
    module = prepared()
    before = {key: value.clone() for key, value in module.named_parameters()}
    losses = train(module, list(batches(8)))
    model = seeded(Net).train()
    assert losses != pytest.approx(train(model, list(batches(8))), rel=1e-4)
    still = [key for key, value in module.named_parameters() if torch.equal(value, before[key])]
    assert still in ([], ["first.bias"])  # a batch norm takes it away again


def test_train_and_eval_switch_flags_only() -> None:
    module = prepared()
    train(module, list(batches(3)))
    code = module.code
    state = copy.deepcopy(module.state_dict())
    module.eval()
    assert torch.equal(module(X), module(X))  # no dropout
    module(X * 9)  # neither ranges nor statistics move
    assert_equal_states(module.state_dict(), state)
    module.train()
    assert module.code == code
    assert not torch.equal(module(X), module(X))
    assert module.state_dict()["first_norm.num_batches_tracked"] == 5


def nearly(ours: Tensor, theirs: Tensor) -> bool:
    """Equal, but for sums that a folded batch norm rounds to the other neighbouring integer."""
    return bool((ours - theirs).abs().max() <= 0.01 * theirs.abs().max())


def assert_equal_states(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


@pytest.mark.parametrize("learn_scales", [False, True])
def test_a_resumed_training_is_equal_to_the_bit(learn_scales: bool) -> None:
    data = list(batches(8))
    module = prepared(learn_scales=learn_scales)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    for at, batch in enumerate(data[:4]):
        step(module, optimizer, *batch, at)
    module.freeze_batch_norm()
    file = io.BytesIO()
    torch.save({"module": module.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    stored = torch.load(file, weights_only=True)
    fresh = prepared(learn_scales=learn_scales)
    fresh.load_state_dict(stored["module"])
    resumed = torch.optim.SGD(fresh.parameters(), lr=0.05, momentum=0.9)
    resumed.load_state_dict(stored["optimizer"])
    for at, batch in enumerate(data[4:], start=4):
        assert step(fresh, resumed, *batch, at) == step(module, optimizer, *batch, at)
    assert_equal_states(fresh.state_dict(), module.state_dict())
    ours, theirs = x86().convert(fresh), x86().convert(module)
    assert torch.equal(ours(X), theirs(X))


@pytest.mark.parametrize("learn_scales", [False, True])
def test_a_copy_goes_its_own_way(learn_scales: bool) -> None:
    module = prepared(learn_scales=learn_scales)
    train(module, list(batches(2)))
    twin = copy.deepcopy(module)
    assert isinstance(twin, QatModule)
    state = copy.deepcopy(module.state_dict())
    assert train(twin, list(batches(3))) == train(copy.deepcopy(module), list(batches(3)))
    assert_equal_states(module.state_dict(), state)
    twin.fake_quantize(False)
    assert all(each.quantizing for each in module.fake_quantizes())
    assert torch.equal(x86().convert(copy.deepcopy(module))(X), x86().convert(module)(X))


def test_nothing_is_shared_with_the_model_or_the_captured_graph() -> None:
    model = seeded(Net)
    graph = capture(model, (X,), training=True)
    state = copy.deepcopy(graph.state_dict())
    module = x86().prepare(graph, qat=True)
    theirs = {t.data_ptr() for each in (model, graph) for t in each.state_dict().values()}
    assert theirs.isdisjoint(t.data_ptr() for t in module.state_dict().values())
    train(module, list(batches(3)))
    assert_equal_states(graph.state_dict(), state)
    quantized = x86().convert(module)
    before = quantized(X)
    train(module, list(batches(3)))
    assert torch.equal(quantized(X), before)


def test_frozen_observers_keep_ranges_and_frozen_batch_norms_statistics() -> None:
    module = prepared()
    train(module, list(batches(2)))
    module.freeze_observers()
    module.freeze_batch_norm()
    before = copy.deepcopy(module.state_dict())
    train(module, list(batches(4)))
    after = module.state_dict()
    still = [key for key in before if torch.equal(before[key], after[key])]
    floats = dict(module.named_parameters())
    assert sorted(still) == sorted(key for key in before if key not in floats)
    assert module.training
    frozen = module(X)
    module.eval()
    modes = [each for each in module.modules() if isinstance(each, Mode)]
    assert sorted(each.frozen for each in modes) == [False, True]
    assert not torch.equal(module(X), frozen)  # but for the dropout
    module.train()
    module.freeze_observers(False)
    module.freeze_batch_norm(False)
    module(X * 9)
    assert not torch.equal(
        module.state_dict()["first_norm.running_var"], before["first_norm.running_var"]
    )
    ranges = [key for key in before if key.endswith("range.max_val")]
    assert all(not torch.equal(module.state_dict()[key], before[key]) for key in ranges)


def test_a_schedule_can_be_resumed_anywhere() -> None:
    schedule = QatSchedule(2, freeze_batch_norm_from=4, freeze_observers_from=6)
    module, seen = prepared(), []
    for at in (0, 1, 2, 3, 4, 5, 6, 7, 3):
        schedule.apply(module, at)
        [activation] = {e.frozen for e in module.fake_quantizes() if isinstance(e, FakeQuantize)}
        [rounding] = {each.quantizing for each in module.fake_quantizes()}
        norms = module.get_submodule("batch_norm_mode")
        assert isinstance(norms, Mode)
        seen.append((rounding, norms.frozen, activation))
    off, on, norm, all_ = (
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
    )
    assert seen == [off, off, on, on, norm, norm, all_, all_, on]
    with refused(
        "number-range", PipelineError, site="freeze_observers_from", says="freeze_observers_from=-1"
    ):
        QatSchedule(freeze_observers_from=-1)


def test_learned_scales_are_parameters_from_the_start() -> None:
    module = prepared(learn_scales=True)
    scales = list(module.scale_parameters())
    assert len(scales) == len(list(module.fake_quantizes()))
    assert {id(each) for each in scales} <= {id(each) for each in module.parameters()}
    train(module, list(batches(1)))
    before = [each.detach().clone() for each in scales]
    train(module, list(batches(5)))
    assert all(not torch.equal(a, b) for a, b in zip(scales, before, strict=True))
    module.freeze_observers()
    assert all(each.requires_grad for each in scales)


def test_no_optimizer_kills_a_learned_scale() -> None:
    module = prepared(learn_scales=True)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for at, batch in enumerate(batches(60)):
        step(module, optimizer, *batch, at)
    for each in module.fake_quantizes():
        assert isinstance(each, LearnedFakeQuantize)
        assert bool((each.scale > 0).all())
        assert each.log_ratio.grad is not None
        assert bool((each.log_ratio.grad != 0).all())


def test_a_learned_scale_starts_with_the_first_step_that_rounds() -> None:
    module, late = prepared(learn_scales=True), prepared(learn_scales=True)
    late.fake_quantize(False)
    late(X * 50)
    assert not any(each.observed for each in late.fake_quantizes())
    late.fake_quantize(True)
    late(X)
    module(X)
    for ours, theirs in zip(late.fake_quantizes(), module.fake_quantizes(), strict=True):
        assert isinstance(ours, LearnedFakeQuantize)
        assert isinstance(theirs, LearnedFakeQuantize)
        if ours.spec.axis is None and "first" in ours.label:
            assert torch.equal(ours.start, theirs.start)


def test_scales_have_a_gradient_while_nothing_is_rounded() -> None:
    """DistributedDataParallel waits for one."""
    module = prepared(learn_scales=True)
    module.fake_quantize(False)
    module(X).sum().backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in module.scale_parameters())  # type: ignore[arg-type]


def test_calibration_that_fails_leaves_a_module_that_works() -> None:
    for learn_scales in (False, True):
        module = prepared(learn_scales=learn_scales)
        module.get_parameter("first.weight").data.fill_(3e37)
        with refused("not-finite", CalibrationError, site="second (conv2d_1).input"):
            calibrate(module, [X.abs() + 1])
        assert module.training
        assert not any(
            each.calibrating for each in module.modules() if isinstance(each, FakeQuantize)
        )


def test_what_diverged_is_not_converted() -> None:
    for learn_scales in (False, True):
        for name, site in (
            ("second.weight", "second (conv2d_1).weight"),
            ("second_norm.bias", "batch_norm_1"),
        ):
            module = prepared(learn_scales=learn_scales)
            module(X)
            module.get_parameter(name).data[0] = torch.nan
            with refused("not-finite", CalibrationError, site=site):
                x86().convert(module)


def test_it_is_copied_and_not_pickled() -> None:
    module = prepared()
    module(X)
    module.agree_within(object())  # as little copied or pickled as a process group
    copy.deepcopy(module)
    with refused("not-picklable", PipelineError, fix="state_dict()"):
        torch.save(module, io.BytesIO())


def test_a_submodule_with_a_methods_name_is_refused() -> None:
    model = nn.Sequential()
    model.add_module("freeze_observers", nn.Linear(8, 4))
    graph = capture(model, (torch.randn(2, 8),), training=True)
    with refused("taken-name", PipelineError, site="freeze_observers"):
        x86().prepare(graph, qat=True)


def test_frozen_observers_do_not_calibrate() -> None:
    module = prepared()
    module(X)
    module.freeze_observers()
    before = copy.deepcopy(module.state_dict())
    calibrate(module, [X * 9])
    assert_equal_states(module.state_dict(), before)


def test_half_precision_weights_are_rounded_in_training() -> None:
    config = Config(None).op("linear", "fp16")
    module = prepared(config=config)
    module.eval()
    quantized = x86().with_config(config).convert(module)
    assert torch.allclose(quantized(X), module(X), atol=1e-6)
    rounded = module(X)
    module.fake_quantize(False)
    assert not torch.equal(module(X), rounded)


def test_calibration_starts_the_ranges_and_leaves_the_rest_alone() -> None:
    for learn_scales in (False, True):
        module = prepared(learn_scales=learn_scales)
        state = copy.deepcopy(module.state_dict())
        with refused("never-run", CalibrationError):
            module.eval()(X)
        module.train()
        assert calibrate(module, [x for x, _ in batches(4)]) == 4
        assert module.training
        assert all(each.training for each in module.modules())
        for key in ("first_norm.running_mean", "first_norm.num_batches_tracked", "first.weight"):
            assert torch.equal(module.state_dict()[key], state[key])
        model = seeded(Net)
        assert (module.eval()(X) - model(X)).abs().max() < 0.1
        assert nearly(x86().convert(module)(X), module(X))


def test_dynamic_ranges_train_as_well() -> None:
    config = Config().op("linear", "dynamic")
    module = prepared(config=config)
    train(module, list(batches(4)))
    quantized = x86().with_config(config).convert(module)
    [choose] = quantized.graph.find_nodes(
        op="call_function", target=torch.ops.quantized_decomposed.choose_qparams.tensor
    )
    assert choose.args[0].name == "mean"
    assert nearly(quantized(X), module.eval()(X))


def norms_read(module: QatModule) -> list[tuple[str, torch.dtype]]:
    """Return the dtype of what each batch norm reads, of the calls to come in this context."""

    class Reads(Interpreter):
        def run_node(self, n: Node) -> Any:
            result = super().run_node(n)
            if n.target is torch.ops.aten.batch_norm.default:
                args, _ = self.fetch_args_kwargs_from_env(n)
                found.append((n.name, args[0].dtype))
            return result

    found: list[tuple[str, torch.dtype]] = []
    Reads(module).run(X)
    return found


def test_autocast_to_bfloat16() -> None:
    module = prepared()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses: list[float] = []
    for _ in range(12):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = module(X)
            assert y.dtype == torch.bfloat16
            if not losses:
                assert {dtype for _, dtype in norms_read(module)} == {torch.bfloat16}
            loss = F.cross_entropy(y.float(), torch.arange(4))
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] * 0.8
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    exact = module.eval()(X)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(module(X).float(), exact, atol=0.05)
    assert nearly(x86().convert(module)(X), exact)


def test_a_double_precision_training_is_converted_by_way_of_single() -> None:
    model = seeded(Net).double()
    module = x86().prepare(capture(model, (X.double(),), training=True), qat=True)
    train(module, list(batches(3, torch.float64)))
    with refused(
        "float64", SpecError, site="head_weight", fix="trained.float().state_dict", says="float64"
    ):
        x86().convert(module)
    single = prepared()
    single.load_state_dict(module.float().state_dict())
    assert nearly(x86().convert(single)(X), single.eval()(X))
    assert not any(isinstance(each, LearnedFakeQuantize) for each in single.modules())


def test_it_trains_compiled() -> None:
    """One layer with all kinds of sites: Dynamo takes a second for each."""
    model, x = normed("relu")
    module = x86().prepare(capture(model, (x,), training=True), qat=True)
    compiled = copy.deepcopy(module)
    compiled.compile(backend="eager")
    data = [(x * size, torch.zeros(4, 6, 6, dtype=torch.long)) for size in (1, 2, 3)]
    assert train(compiled, data) == pytest.approx(train(module, data), rel=1e-5)
