from __future__ import annotations

import copy
import itertools
import pickle
import time
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.ao.quantization import observer as torch_ao

from quantfx.passes.errors import CalibrationError
from quantfx.passes.observers.histogram import HistogramObserver, narrowing_ranges
from quantfx.passes.quant.spec import QuantSpec
from tests.passes.observers.distributions import KINDS, batches
from tests.refusals import refused

U8 = QuantSpec(torch.uint8, 0, 255)
# With torch.ao's floor, which decides where nothing but zeros was seen.
SPECS = [
    QuantSpec(torch.uint8, 0, 255, eps=2**-12),
    QuantSpec(torch.uint8, 0, 127, eps=2**-12),  # reduce_range
    QuantSpec(torch.int8, -128, 127, symmetric=True, eps=2**-12),
    QuantSpec(torch.uint8, 0, 255, symmetric=True, eps=2**-12),
    QuantSpec(torch.int8, -127, 127, symmetric=True, eps=2**-12),
]


def torch_ao_observer(spec: QuantSpec, bins: int = 2048) -> torch_ao.HistogramObserver:
    full = (spec.quant_min, spec.quant_max) in ((0, 255), (-128, 127))
    return torch_ao.HistogramObserver(
        bins,
        spec.dtype,
        torch.per_tensor_symmetric if spec.symmetric else torch.per_tensor_affine,
        quant_min=None if full else spec.quant_min,
        quant_max=None if full else spec.quant_max,
        eps=spec.eps,
    )


def assert_equal_to_torch_ao(spec: QuantSpec, xs: Sequence[Tensor], bins: int = 2048) -> None:
    """Same record and same qparams, bit for bit."""
    reference, observer = torch_ao_observer(spec, bins), HistogramObserver(spec, bins=bins)
    for x in xs:
        reference(x)
        assert observer(x) is x
    assert torch.equal(observer.histogram, reference.histogram)
    assert observer.min_val == reference.min_val
    assert observer.max_val == reference.max_val
    scale, zero_point = reference.calculate_qparams()
    qparams = observer.calculate_qparams()
    assert qparams.scale.shape == qparams.zero_point.shape == ()
    assert qparams.scale == scale
    assert qparams.zero_point == zero_point


# Two of five specs for each kind, so that every spec has seven kinds; the sweep has all.
TURNS = [(kind, (turn + step) % 5) for turn, kind in enumerate(KINDS) for step in (0, 2)]


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        case if case in TURNS else pytest.param(*case, marks=pytest.mark.sweep)
        for case in itertools.product(KINDS, range(5))
    ],
)
def test_equals_torch_ao(kind: str, seed: int) -> None:
    assert_equal_to_torch_ao(SPECS[seed % len(SPECS)], batches(kind, seed))


@pytest.mark.sweep
@pytest.mark.parametrize("block", range(20))
@pytest.mark.parametrize("kind", KINDS)
def test_equals_torch_ao_on_many(kind: str, block: int) -> None:
    for seed in range(100 + 10 * block, 110 + 10 * block):
        assert_equal_to_torch_ao(SPECS[seed % len(SPECS)], batches(kind, seed))


@pytest.mark.parametrize("bins", [16, 100, 1000])
def test_equals_torch_ao_with_other_bins(bins: int) -> None:
    torch.manual_seed(0)
    assert_equal_to_torch_ao(U8, [torch.randn(500), torch.randn(500) * 3], bins)


def test_equals_torch_ao_when_a_constant_widens() -> None:
    xs = [torch.full((9,), 2.0), torch.full((9,), 2.0), torch.randn(99) * 5, torch.zeros(3)]
    assert_equal_to_torch_ao(U8, xs)


def test_equals_torch_ao_on_large_activations() -> None:
    torch.manual_seed(0)
    assert_equal_to_torch_ao(U8, [torch.randn(2, 64, 56, 56), torch.randn(2, 64, 56, 56) ** 3])


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_extreme_sizes_find_the_range_of_ordinary_ones(size: float) -> None:
    """Powers aside: torch.ao's cubes overflow or vanish here."""
    torch.manual_seed(0)
    x = torch.randn(1000) ** 3
    ordinary, extreme = HistogramObserver(U8), HistogramObserver(U8)
    ordinary(x)
    extreme(x * size)
    ends = [float(end) for end in ordinary.find_range()]
    assert [float(end) / size for end in extreme.find_range()] == pytest.approx(ends, rel=1e-3)


def test_half_precision_is_recorded_as_float32() -> None:
    torch.manual_seed(0)
    x = torch.randn(1000).to(torch.bfloat16)
    half, single = HistogramObserver(U8), HistogramObserver(U8)
    half(x)
    single(x.float())
    assert torch.equal(half.histogram, single.histogram)


def test_ranges_only_narrow_and_each_is_new() -> None:
    torch.manual_seed(0)
    ranges = list(narrowing_ranges(torch.rand(2048) ** 8))
    assert len(ranges) > 100
    for (start, end), (next_start, next_end) in itertools.pairwise(ranges):
        assert (next_start - start) + (end - next_end) > 0
        assert start <= next_start <= next_end <= end


def hand_made_histograms() -> list[Tensor]:
    one, ends, middle = torch.zeros(2048), torch.zeros(2048), torch.zeros(2048)
    one[7] = 5.0
    ends[[0, -1]] = torch.tensor([1.0, 2.0])
    middle[1000:1010] = 1e6
    middle[::100] += 1e-3
    return [one, one.flip(0), ends, middle, torch.ones(2048), torch.arange(2048.0)]


@pytest.mark.parametrize("histogram", hand_made_histograms())
def test_search_equals_torch_ao_on_hand_made_histograms(histogram: Tensor) -> None:
    """As if these counts had been recorded on [-1, 1]."""
    reference, observer = torch_ao_observer(U8), HistogramObserver(U8)
    for each in (reference, observer):
        each.histogram.copy_(histogram)
        each.min_val.fill_(-1.0)
        each.max_val.fill_(1.0)
    scale, zero_point = reference.calculate_qparams()
    qparams = observer.calculate_qparams()
    assert qparams.scale == scale
    assert qparams.zero_point == zero_point


def test_few_values_take_milliseconds() -> None:
    """torch.ao walks 100,000 steps here, 0.1 to 0.5 s; the best of 5 shuts out a busy machine."""
    torch.manual_seed(0)
    observer = HistogramObserver(U8)
    for batch in range(1, 5):
        observer(torch.randn(8) * batch)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        observer.calculate_qparams()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.010


def test_state_dict_deepcopy_and_pickle_keep_the_record() -> None:
    torch.manual_seed(0)
    observer = HistogramObserver(U8, "x")
    observer(torch.randn(100))
    loaded = HistogramObserver(U8, "x")
    loaded.load_state_dict(observer.state_dict())
    more = torch.randn(100) * 2
    observer_twins = (loaded, copy.deepcopy(observer), pickle.loads(pickle.dumps(observer)))
    observer(more)
    for twin in observer_twins:
        twin(more)
        assert torch.equal(twin.histogram, observer.histogram)
        assert twin.calculate_qparams().scale == observer.calculate_qparams().scale


def test_needs_data() -> None:
    observer = HistogramObserver(U8, "x")
    observer(torch.empty(0))
    with refused("never-run", CalibrationError, site="x"):
        observer.calculate_qparams()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_refuses_non_finite_and_keeps_its_record(bad: float) -> None:
    observer = HistogramObserver(U8, "layer1.0")
    observer(torch.ones(3))
    with refused("not-finite", CalibrationError, site="layer1.0"):
        observer(torch.tensor([1.0, bad]))
    assert observer.histogram.sum() == 3
