"""Small networks trained on the spot on scikit-learn's handwritten digits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantfx.patterns.errors import QuantfxError

_EPOCHS = 12
BATCH = 64
_TRAIN_SHARE = 0.75


WIDTH, HEADS, BLOCKS = 32, 4, 2


@dataclass(frozen=True)
class DigitsRun:
    """A trained network and the data around it; images are ``(n, 1, 8, 8)`` in [0, 1].

    Attributes:
        model: The network, in eval mode.
        train_images: What it was trained on; calibrate with these.
        train_labels: Their digits.
        test_images: Held-out images.
        test_labels: Their digits.
    """

    model: nn.Module
    _: KW_ONLY
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def accuracy(self, model: nn.Module | None = None) -> float:
        """Return the share of test images that ``model`` (default: the trained one) gets right."""
        with torch.no_grad():
            predicted: Tensor = (model or self.model)(self.test_images).argmax(1)
        return (predicted == self.test_labels).float().mean().item()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the training data once, in random order, in batches of at least 64."""
        count = len(self.train_images) // BATCH
        for rows in torch.randperm(len(self.train_images)).chunk(count):
            yield self.train_images[rows], self.train_labels[rows]


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


def train_digits(seed: int = 0, make: Callable[[], nn.Module] = DigitsNet) -> DigitsRun:
    """Train a network in a few seconds; random state and threads are left as they were.

    Args:
        seed: Of the weights, of the split into training and test images, and of the batches.
        make: Returns the network, which maps ``(n, 1, 8, 8)`` to logits ``(n, 10)``.

    Raises:
        QuantfxError: scikit-learn is not installed.
    """
    images, labels = _load()
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        order = torch.randperm(len(images))
        cut = int(_TRAIN_SHARE * len(images))
        train, test = order[:cut], order[cut:]
        run = DigitsRun(
            make(),
            train_images=images[train],
            train_labels=labels[train],
            test_images=images[test],
            test_labels=labels[test],
        )
        _train(run)
    return run


def _conv_bn(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def _load() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise QuantfxError(
            f"the digits need {error.name}",
            rule="missing-package",
            site=str(error.name),
            fix="pip install 'quantfx[demo]'",
        ) from error
    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return images, torch.tensor(digits, dtype=torch.int64)


@contextmanager
def one_thread() -> Generator[None, None, None]:
    """Use one thread: operators this small lose more to waiting for a second than it gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(run: DigitsRun) -> None:
    model = run.model.train()
    steps = _EPOCHS * (len(run.train_images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(_EPOCHS):
        for images, labels in run.batches():
            loss = functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    model.eval()


class DigitsTransformer(nn.Module):
    """A transformer in which a row of pixels is a token.

    Rows are embedded with a learned position; pre-norm blocks with dropout, mean, classifier.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, WIDTH)
        self.position = nn.Parameter(torch.randn(8, WIDTH) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(n, 1, 8, 8)`` to logits ``(n, 10)``."""
        tokens = self.embed(x.squeeze(1)) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        logits: Tensor = self.classifier(self.norm(tokens).mean(1))
        return logits


class Block(nn.Module):
    """Self-attention and a perceptron, each behind a layer norm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.merge = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.widen, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(n, 8, width)`` to tokens."""
        x = x + self.dropout(self.merge(self._attend(self.attention_norm(x))))
        widened = nn.functional.gelu(self.widen(self.mlp_norm(x)))
        result: Tensor = x + self.dropout(self.narrow(widened))
        return result

    def _attend(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        return mixed.transpose(1, 2).flatten(2)
