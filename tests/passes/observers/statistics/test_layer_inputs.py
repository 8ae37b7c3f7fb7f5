from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.observe.statistics.patches import Patches
from quantfx.passes.observe.statistics.recorders import LayerRecorder
from quantfx.passes.observers.statistics.layer_inputs import LayerInputs, block_sizes


def rows(seed: int, length: int) -> Tensor:
    return torch.randn(200, length, generator=torch.Generator().manual_seed(seed)) + 0.5


def recorded(*given: Tensor) -> LayerInputs:
    recorder = LayerRecorder(Patches(given[0].shape[-1]))
    for each in given:
        assert recorder(each) is each
    found = recorder.result()
    assert found is not None
    return found


def moments_of(x: Tensor) -> Tensor:
    """Return the rows that moments are of: every fourth is held out."""
    return x[torch.arange(len(x)) % 4 != 3].double()


def test_a_gram_is_the_mean_of_products() -> None:
    x, y = rows(0, 6), rows(1, 6)
    found = recorded(x, y)
    both = moments_of(torch.cat([x, y]))
    assert found.rows == 300
    torch.testing.assert_close(found.gram[0].double(), both.T @ both / 300, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.mean[0].double(), both.mean(0), rtol=1e-5, atol=1e-6)
    assert torch.equal(found.held[0], torch.cat([x[3::4], y[3::4]]))


def test_of_calls_of_few_samples_every_fourth_patch_is_held_out() -> None:
    x = rows(0, 6)[:24].reshape(12, 2, 6)
    found = recorded(*torch.split(x, 2))
    assert found.rows == 18
    assert torch.equal(found.held[0], x.reshape(24, 6)[3::4])


def test_of_many_held_out_patches_some_are_kept() -> None:
    x = torch.arange(20000.0).reshape(-1, 1)
    found = recorded(*torch.split(x, 256))
    assert 512 < found.held.shape[1] <= 1024
    assert len({float(each) for each in found.held[0, 1:, 0].diff()}) <= 2
    assert float(found.held[0, -1, 0]) > 19900
    long = rows(0, 6000)
    assert recorded(long).held.shape == (1, 50, 6000)
    assert recorded(*[long] * 8).held.shape == (1, 100, 6000)


def test_outputs_of_held_out_patches_and_division() -> None:
    x, weight = rows(0, 6), rows(1, 6)[:5]
    found = recorded(x)
    held, rest = x[3::4].double(), moments_of(x)
    torch.testing.assert_close(found.held_outputs(weight), weight.double() @ held.T)
    wanted = weight.double() @ rest.mean(0)
    torch.testing.assert_close(found.mean_output(weight), wanted, rtol=1e-5, atol=1e-6)
    covariance = rest.T @ rest / 150 - torch.outer(rest.mean(0), rest.mean(0))
    torch.testing.assert_close(found.covariance[0], covariance, rtol=1e-4, atol=1e-5)
    divisor = torch.arange(1, 7)
    divided, wanted_inputs = found.divided_by(divisor), recorded(x / divisor)
    for name in ("gram", "mean", "held"):
        torch.testing.assert_close(getattr(divided, name), getattr(wanted_inputs, name))


def test_long_patches_are_cut_into_blocks() -> None:
    x = rows(0, 2050)
    assert block_sizes(2050) == (3, 684)
    found = recorded(x)
    whole = moments_of(x).T @ moments_of(x) / 150
    assert found.gram.shape == (3, 684, 684)
    torch.testing.assert_close(
        found.gram[1].double(), whole[684:1368, 684:1368], rtol=1e-5, atol=1e-5
    )
    last = whole[1368:, 1368:]
    torch.testing.assert_close(found.gram[2, :682, :682].double(), last, rtol=1e-5, atol=1e-5)
    assert not found.gram[2, 682:].any()
    assert found.mean.shape == (1, 2050)


def test_merging_weighs_by_rows() -> None:
    x, y = rows(0, 6), rows(1, 6)[:100]
    merged, whole = LayerInputs.merge([recorded(x), recorded(y)]), recorded(x, y)
    assert merged.rows == whole.rows == 225
    assert torch.equal(merged.held, whole.held)
    torch.testing.assert_close(merged.gram, whole.gram)
    torch.testing.assert_close(merged.mean, whole.mean)


def test_what_never_ran_has_no_rows_and_what_is_not_finite_no_moments() -> None:
    recorder = LayerRecorder(Patches(6))
    found = recorder.result()
    assert found is not None
    assert found.rows == 0
    assert torch.equal(
        LayerInputs.merge([found, recorded(rows(0, 6))]).gram, recorded(rows(0, 6)).gram
    )
    recorder(rows(0, 6) / 0)
    assert recorder.result() is None
    recorder = LayerRecorder(Patches(6))
    recorder(rows(0, 6) * 1e25)  # whose squares leave float32
    assert recorder.result() is None
