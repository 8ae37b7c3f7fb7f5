"""Small models that do something else in training than in evaluation, as transformers do.

Each reads ``4 x 6 x 8`` and has two linears, ``first`` and ``second``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (4, 6, 8)


class Base(nn.Module):
    """Two linears."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.shift: Tensor
        self.register_buffer("shift", torch.linspace(-1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x), x))

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        raise NotImplementedError


class Attention(Base):
    """Its layout depends on whether dropout is on: contiguous() is a call in one mode only."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        heads = y.view(4, 6, 2, 4).transpose(1, 2)
        p = 0.2 if self.training else 0.0
        mixed = F.scaled_dot_product_attention(heads, heads, heads, dropout_p=p)
        return mixed.transpose(1, 2).contiguous().view(4, 6, 8)


class MaskedAttention(Base):
    """The same with a mask, and with a reshape in the place of the view."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        q, k, v = y[..., None, :].expand(4, 6, 3, 8).view(4, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mask = torch.ones(4, 1, 6, 6, dtype=torch.bool)
        p = 0.2 if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        return mixed.transpose(1, 2).contiguous().reshape(4, 6, 8)


class ByMode(Base):
    """p of a dropout is chosen by the mode, as in eager attention."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        return F.dropout(torch.softmax(y, -1), 0.3 if self.training else 0.0, self.training)


class ByModeAlone(Base):
    """p alone is chosen by the mode."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        return F.dropout(torch.softmax(y, -1), 0.3 if self.training else 0.0, training=True)


class InPlace(Base):
    """A dropout that is called in training only, in place, of a p that is chosen by the mode."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        y = F.dropout(y * 2, 0.2 if self.training else 0.0, self.training, inplace=True)
        return F.dropout(y, 0.2, inplace=True) if self.training else y


class Views(Base):
    """Other views of the same values."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        if self.training:
            y = y.permute(2, 1, 0).transpose(0, 2).clone()
            return torch.unflatten(y.flatten(1), 1, (6, 8)).unsqueeze(0).squeeze(0).float()
        return y


class StochasticDepth(Base):
    """Drops the branch of some samples, as timm's and torchvision's networks do."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        if self.training:
            mask = y.new_empty((y.shape[0],) + (1,) * (y.ndim - 1)).bernoulli_(0.5)
            y = y * mask.div_(0.5)
        return x + y


class ByFloor(Base):
    """The same as Hugging Face's networks have it: the branch is divided first."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        if self.training:
            random = 0.5 + torch.rand((y.shape[0], 1, 1), dtype=y.dtype, device=y.device)
            y = y.div(0.5) * random.floor_()
        return y + x


class GaussianNoise(Base):
    """Adds to the input, and scales a tensor that is reshaped first."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        if self.training:
            y = y + torch.randn_like(y) * 0.1
        y = y.reshape(24, 8)
        if self.training:
            y = (1 + 0.1 * torch.randn_like(y)) * y
        return y.relu().reshape(4, 6, 8)


class OwnDropout(Base):
    """A dropout that is written out, and one behind it."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        y = y.relu()
        if self.training:
            y = torch.where(torch.rand_like(y) < 0.2, 0.0, y) / 0.8
            y = F.dropout(y, 0.2)
        return y


class NoiseInBoth(Base):
    """Random numbers in both modes, behind those of training; constants of one mode's code."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        if self.training:
            y = y * torch.rand(4, 1, 1)
        y = y * torch.rand(4, 1, 1)
        return y * torch.tensor([2.0]) + torch.tensor([1.0])


ALIGNED = (
    Attention,
    MaskedAttention,
    ByMode,
    ByModeAlone,
    InPlace,
    Views,
    StochasticDepth,
    ByFloor,
    GaussianNoise,
    OwnDropout,
    NoiseInBoth,
)


class OtherFunction(Base):
    """Another function in training."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        return y.tanh() if self.training else y.sigmoid()


class MoreInTraining(Base):
    """One call more in training, and no noise."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        return y.relu() if self.training else y


class MoreInEvaluation(Base):
    """One call more in evaluation."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        return y if self.training else y.relu()


class OtherOrder(Base):
    """The same elements in another order."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        return y.reshape(6, 4, 8) if self.training else y.transpose(0, 1)


class OtherTensor(Base):
    """The same operator on another tensor."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        return x.relu() if self.training else y.relu()


class SharedNoise(Base):
    """Two tensors get the same mask."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        z = y.exp()
        if self.training:
            mask = torch.rand(4, 1, 1)
            y, z = y * mask, z * mask
        return y.relu() + z.tanh()


class LearnedNoise(Base):
    """Noise that depends on a tensor of the model's."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        return y + self.shift * torch.randn_like(y) if self.training else y


class MixedUp(Base):
    """Noise on a tensor that takes in a second one."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        return y + x * torch.rand(4, 1, 1) if self.training else y


class OtherSizes(Base):
    """Noise in a shape that evaluation would not have."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        return (y * torch.rand(4, 1, 1)).sum(0, keepdim=True) if self.training else y


class Counts(Base):
    """A buffer that only training writes to."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        if self.training:
            self.shift.add_(1.0)
        return y + self.shift


class MoreOutputs(Base):
    """Another result in training."""

    def forward(self, x: Tensor) -> Any:
        y = self.first(x)
        return (y, self.second(y)) if self.training else y


class MoreAtTheEnd(Base):
    """Probabilities in evaluation, logits in training."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x)
        return y if self.training else y.softmax(-1)


class NumbersOfPython(Base):
    """A mask that torch does not draw: the graph would have one for good."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        return y * torch.tensor([[[0.5]], [[2.0]], [[1.0]], [[0.0]]]) if self.training else y


class SameRandomNumbers(Base):
    """Training adds what it dropped in evaluation: a mask that something else reads."""

    def between(self, y: Tensor, x: Tensor) -> Tensor:
        if self.training:
            mask = torch.rand(4, 1, 1)
            return (y * mask).relu() + mask
        return y.relu()


# The node that is named, and what else the text must say.
REFUSED: dict[type[Base], tuple[str, str]] = {
    OtherFunction: ("tanh", r"aten\.tanh\.default in.*aten\.sigmoid\.default in"),
    MoreInTraining: ("relu", r"aten\.relu\.default in.*aten\.linear\.default in"),
    MoreInEvaluation: ("linear_1", r"aten\.linear\.default.*in.*aten\.relu\.default in"),
    OtherOrder: ("linear_1", r"aten\.linear\.default.*on other tensors"),
    OtherTensor: ("relu", r"aten\.relu\.default.*on other tensors"),
    SharedNoise: ("mul", "on linear in.*rand .* also feeds mul_1, not only mul"),
    LearnedNoise: ("mul", r"aten\.mul\.Tensor in.*aten\.linear\.default in"),
    MixedUp: ("mul", r"aten\.mul\.Tensor in.*aten\.linear\.default in"),
    OtherSizes: ("mul", r"aten\.mul\.Tensor in.*aten\.linear\.default in"),
    Counts: ("add_", r"aten\.add_\.Tensor in.*aten\.add\.Tensor in"),
    MoreOutputs: ("linear_1", r"aten\.linear\.default.*in training where it returns in evaluation"),
    MoreAtTheEnd: ("output", r"returns in training.*aten\.softmax\.int"),
    NumbersOfPython: ("lift_fresh_copy", "lift_fresh_copy.*numpy"),
    SameRandomNumbers: ("mul", "on linear in.*rand .* also feeds add"),
}
