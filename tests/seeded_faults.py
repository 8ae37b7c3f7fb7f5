"""Faults put into passes of ours, for bisections to find, and two networks to find them in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.backends.onednn.family import OneDNN
from quantfx.passes.annotate.sharing import Sharing
from quantfx.passes.convert import insert_qdq
from quantfx.passes.fold import fold_batch_norm
from quantfx.passes.fold.fold_constants import FoldConstants
from quantfx.passes.graph.batch_norm import statistics_of
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site
from quantfx.passes.pipeline.base import Context, PassResult
from quantfx.passes.pipeline.kernel_family import Candidate, Emission
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.qparams import QParams
from quantfx.tools.models.seeded import seeded

Fault = Callable[[pytest.MonkeyPatch], None]


class ConvNet(nn.Module):
    """Convolutions with batch norms, a residual sum, a pool and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.join = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.tail = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.fc = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        stem = F.max_pool2d(self.stem(x), 2)
        joined = F.relu(self.join(self.body(stem)) + stem)
        logits: Tensor = self.fc(F.max_pool2d(self.tail(joined), 2).flatten(1))
        return logits


class Attention(nn.Module):
    """Two transformer layers of one head, spelled out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Layer(nn.Module):
    """Attention, then a multi-layer perceptron, each added to what it read and normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.first, self.second = nn.LayerNorm(16), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        scores = (self.q(x) @ self.k(x).transpose(1, 2) / 4).softmax(-1)
        x = self.first(x + self.o(scores @ self.v(x)))
        out: Tensor = self.second(x + self.down(F.gelu(self.up(x))))
        return out


def conv_net() -> tuple[nn.Module, Tensor]:
    """Return the network with an input; one batch norm's variances are as small as its eps."""
    model = seeded(ConvNet)
    torch.nn.init.constant_(model.get_buffer("join.1.running_var"), 2e-5)
    torch.nn.init.zeros_(model.get_buffer("join.1.running_mean"))
    model.get_submodule("join.0").weight.data.mul_(0.01)  # type: ignore[operator]
    return model, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def attention() -> tuple[nn.Module, Tensor]:
    """Return the network with an input."""
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    return seeded(Attention), x


def lose_eps(patch: pytest.MonkeyPatch, norm: str = "batch_norm_2") -> None:
    """Fold one batch norm as if its eps were zero."""
    exact = statistics_of

    def lost(editor: Editor, node: Node) -> Any:
        statistics = exact(editor, node)
        return replace(statistics, eps=0.0) if node.name == norm else statistics

    patch.setattr(fold_batch_norm, "statistics_of", lost)


def swap_scales(patch: pytest.MonkeyPatch, template: str) -> None:
    """Convert the weights of a template with the scales of other channels."""
    exact = insert_qdq._quantize

    def wrong(editor: Editor, node: Node, qparams: QParams) -> None:
        readers = [annotation_of(user) for user in node.users]
        of_template = any(each is not None and each.template == template for each in readers)
        if of_template and qparams.spec.axis is not None:
            qparams = replace(qparams, scale=qparams.scale.flip(0) * 16)
        exact(editor, node, qparams)

    patch.setattr(insert_qdq, "_quantize", wrong)


def break_kernel(patch: pytest.MonkeyPatch, site: str) -> None:
    """Let the kernel of one site compute the double of its result's steps."""
    exact = OneDNN.emit

    def wrong(self: OneDNN, candidate: Candidate, editor: Editor) -> Emission:
        emission = exact(self, candidate, editor)
        if candidate.site.node == site:
            args = list(emission.node.args)
            args[1] = 2.0 * float(args[1])  # type: ignore[arg-type]  # the scale of what it reads
            emission.node.args = tuple(args)
        return emission

    patch.setattr(OneDNN, "emit", wrong)


def refuse_kernel(patch: pytest.MonkeyPatch, site: str) -> None:
    """Let the family refuse one site, which then misses its kernel."""
    exact = OneDNN.refuses

    def refuses(self: OneDNN, candidate: Candidate, editor: Editor) -> str | None:
        return "a fault" if candidate.site.node == site else exact(self, candidate, editor)

    patch.setattr(OneDNN, "refuses", refuses)


def raise_in_pass(patch: pytest.MonkeyPatch) -> None:
    """Let a pass raise, whatever it is given."""

    def fail(self: FoldConstants, module: GraphModule, context: Context) -> PassResult:
        raise KeyError("a fault")

    patch.setattr(FoldConstants, "run", fail)


def raise_for_site(patch: pytest.MonkeyPatch, site: str) -> None:
    """Let the kernel family raise for one site."""
    exact = OneDNN.emit

    def fail(self: OneDNN, candidate: Candidate, editor: Editor) -> Emission:
        if candidate.site.node == site:
            raise KeyError("a fault")
        return exact(self, candidate, editor)

    patch.setattr(OneDNN, "emit", fail)


def share_wrongly(patch: pytest.MonkeyPatch, slot: Site, with_: Site) -> None:
    """Take two tensors for one, so that their observer is one."""
    exact = Sharing.flows

    def flows(self: Sharing, reader: Site, producer: Site) -> None:
        exact(self, reader, with_ if reader == slot else producer)

    patch.setattr(Sharing, "flows", flows)
