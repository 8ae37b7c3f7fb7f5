from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.observe.statistics.patches import Patches
from quantfx.passes.observe.statistics.recorders import LayerRecorder
from quantfx.passes.observers.statistics.layer_inputs import LayerInputs, block_sizes


def rows(seed: int, length: int) -> Tensor:
    return torch.randn(200, length, generator=torch.Generator().manual_seed(seed)) + 0.5


def recorded(*given: Tensor) -> LayerInputs:
    recorder = LayerRecorder(Patches(given[0].shape[1]))
    for each in given:
        assert recorder(each) is each
    found = recorder.result()
    assert found is not None
    return found


def test_a_gram_is_the_mean_of_products() -> None:
    x, y = rows(0, 6), rows(1, 6)
    found = recorded(x, y)
    both = torch.cat([x, y]).double()
    assert found.rows == 400
    torch.testing.assert_close(found.gram[0].double(), both.T @ both / 400, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.mean[0].double(), both.mean(0), rtol=1e-5, atol=1e-6)


def test_long_patches_are_cut_into_blocks() -> None:
    x = rows(0, 2050)
    assert block_sizes(2050) == (3, 684)
    found = recorded(x)
    whole = x.double().T @ x.double() / 200
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
    assert merged.rows == whole.rows == 300
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
