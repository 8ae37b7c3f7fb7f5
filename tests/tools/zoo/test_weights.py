from __future__ import annotations

import torch
from torch import Tensor, nn

from quantfx.tools.zoo.weights import settle, wake


class Branch(nn.Module):
    """A branch that counts for nothing as it is initialized."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 1e-6))
        self.gain = nn.Parameter(torch.zeros(()))
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self.table = nn.Parameter(torch.zeros(3, 4))


def test_constants_wake_and_other_weights_stay() -> None:
    torch.manual_seed(0)
    branch = Branch()
    before = branch.layer.weight.clone()
    wake(branch)
    assert torch.equal(branch.layer.weight, before)
    for vector in (branch.norm.weight, branch.scale):
        assert float(vector.detach().min()) >= 0.5
        assert float(vector.detach().max()) <= 1.0
        assert float(vector.detach().std()) > 0
    assert branch.norm.bias.abs().max() < 0.2
    assert branch.norm.bias.std() > 0
    assert branch.table.std() > 0
    assert (float(branch.gain), float(branch.temperature)) == (0.5, 2.0)


class Deep(nn.Module):
    """Convolutions that shrink what they read, with batch norms."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x)).relu()
        return x


def test_batch_norms_keep_the_size_of_the_signal() -> None:
    torch.manual_seed(0)
    model = Deep(12).eval()
    x, other = torch.randn(2, 1, 16, 8, 8)
    with torch.no_grad():
        assert (model(x) - model(other)).std() < 1e-4
        settle(model, (x,), {})
        assert 0.1 < model(x).std() < 10
        assert (model(x) - model(other)).std() > 1e-3
    assert not any(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
