"""Weights of two bits: what calibration loses, and what repairs and training bring back.

It prints::

    float 100%, calibrated 8...%, repaired 9...%, trained ...%
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

import quantfx
from quantfx import Config, backends


def data(rows: int) -> tuple[Tensor, Tensor]:
    """Return points ``(rows, 2)`` and on which of two interleaved spirals each lies."""
    label = torch.arange(rows) % 2
    turn = torch.rand(rows) * 7 + 1
    angle = turn + label * torch.pi
    return torch.stack([turn * angle.cos(), turn * angle.sin()], 1) / 3, label


def train(model: nn.Module, steps: int, rate: float) -> None:
    """Train on new points in each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        x, y = data(256)
        loss = functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def accuracy(model: nn.Module) -> float:
    """Return the share of 2,000 points that ``model`` gets right."""
    torch.manual_seed(1)
    x, y = data(2000)
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


if __name__ == "__main__":
    torch.manual_seed(0)
    layers = (nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    model = nn.Sequential(*layers)
    train(model, 400, 0.01)
    x, _ = data(256)
    two_bits = Config().weights(quant_min=-2, quant_max=1)
    plain, repairing = (backends.get("x86", repair=on, config=two_bits) for on in (False, True))
    calibrated, repaired = (
        quantfx.quantize(model.eval(), (x,), calibration=[x], backend=backend)
        for backend in (plain, repairing)
    )
    module = quantfx.prepare_qat(model, (x,), calibration=[x], config=two_bits, learn_scales=True)
    train(module.train(), 400, 0.003)
    trained = quantfx.convert_qat(module)
    print(f"float {accuracy(model):.0%}, calibrated {accuracy(calibrated.module):.0%}", end=", ")
    print(f"repaired {accuracy(repaired.module):.0%}, trained {accuracy(trained.module):.0%}")
