import pytest
import torch
from torch import nn

from quantfx.tools.models.digits import DigitsRun, train_digits

pytest.importorskip("sklearn")


def test_float_accuracy_is_worth_quantizing(digits: DigitsRun) -> None:
    assert digits.accuracy() >= 0.97


def test_split_leaves_450_images_out(digits: DigitsRun) -> None:
    assert digits.train_images.shape == (1347, 1, 8, 8)
    assert digits.test_images.shape == (450, 1, 8, 8)
    assert digits.test_labels.shape == (450,)
    assert digits.train_images.min() == 0
    assert digits.train_images.max() == 1


def test_model_is_small_and_in_eval_mode(digits: DigitsRun) -> None:
    assert sum(p.numel() for p in digits.model.parameters()) == 28_842
    assert not any(part.training for part in digits.model.modules())


def test_accuracy_of_another_model(digits: DigitsRun) -> None:
    class AlwaysThree(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(torch.full((len(x),), 3), 10).float()

    threes = (digits.test_labels == 3).float().mean().item()
    assert digits.accuracy(AlwaysThree()) == pytest.approx(threes)


def test_training_repeats_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of it."""
    monkeypatch.setattr("quantfx.tools.models.digits._EPOCHS", 1)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    digits, again = train_digits(), train_digits()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert torch.equal(again.test_labels, digits.test_labels)
    state = again.model.state_dict()
    assert all(torch.equal(value, state[k]) for k, value in digits.model.state_dict().items())
