"""A small residual network trained on the spot on scikit-learn's handwritten digits."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantfx.patterns.errors import QuantfxError

_EPOCHS = 12
_BATCH = 64
_TRAIN_SHARE = 0.75


@dataclass(frozen=True)
class DigitsRun:
    """A trained network and the data around it; images are ``(n, 1, 8, 8)`` in [0, 1].

    Attributes:
        model: The network, in eval mode.
        train_images: What it was trained on; calibrate with these.
        test_images: Held-out images.
        test_labels: Their digits.
    """

    model: nn.Module
    train_images: Tensor
    test_images: Tensor
    test_labels: Tensor

    def accuracy(self, model: nn.Module | None = None) -> float:
        """Return the share of test images that ``model`` (default: the trained one) gets right."""
        with torch.no_grad():
            predicted: Tensor = (model or self.model)(self.test_images).argmax(1)
        return (predicted == self.test_labels).float().mean().item()


class DigitsNet(nn.Module):
    """Three conv-bn-relu blocks, one of them with a residual add, then pooling and a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_bn(1, 32)
        self.residual = _conv_bn(32, 32)
        self.pool = nn.MaxPool2d(2)
        self.widen = _conv_bn(32, 64)
        self.classifier = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(n, 1, 8, 8)`` to logits ``(n, 10)``."""
        x = functional.relu(self.stem(x))
        x = functional.relu(self.residual(x) + x)
        x = functional.relu(self.widen(self.pool(x)))
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self.classifier(x)
        return logits


def train_digits(seed: int = 0) -> DigitsRun:
    """Train the network in a few seconds; random state and threads are left as they were.

    Raises:
        QuantfxError: scikit-learn is not installed.
    """
    images, labels = _load()
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        order = torch.randperm(len(images))
        cut = int(_TRAIN_SHARE * len(images))
        train, test = order[:cut], order[cut:]
        model = DigitsNet()
        _train(model, images[train], labels[train])
    return DigitsRun(model.eval(), images[train], images[test], labels[test])


def _conv_bn(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def _load() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise QuantfxError(f"the digits need {error.name}: pip install 'quantfx[demo]'") from error
    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return images, torch.tensor(digits, dtype=torch.int64)


@contextmanager
def _one_thread() -> Generator[None, None, None]:
    """Use one thread: operators this small lose more to waiting for a second than it gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    batches = len(images) // _BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-2, total_steps=_EPOCHS * batches
    )
    for _ in range(_EPOCHS):
        for batch in torch.randperm(len(images)).chunk(batches):
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
