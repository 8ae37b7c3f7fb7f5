"""The networks are the published ones: parameter counts, and outputs that carry a signal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quantfx.tools.models.bert import BERT_TINY, BertConfig, bert, bert_inputs
from quantfx.tools.models.mobilenet_v2 import STAGES, mobilenet_v2
from quantfx.tools.models.resnet import resnet18, resnet50
from tests.models.densenet import densenet121
from tests.models.small import cat_pool_net, mlp, residual_block
from tests.models.vit import vit_b_16

PUBLISHED: list[tuple[Callable[[], nn.Module], int]] = [
    (resnet18, 11_689_512),
    (resnet50, 25_557_032),
    (mobilenet_v2, 3_504_872),
    (densenet121, 7_978_856),
    (bert, 109_482_240),
    (vit_b_16, 86_567_656),
]

IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SMALL: list[tuple[str, Callable[[], nn.Module], Tensor]] = [
    ("resnet18", lambda: resnet18((1, 1), width=8, classes=10), IMAGE),
    ("resnet50", lambda: resnet50((1, 1), width=8, classes=10), IMAGE),
    ("mobilenet_v2", lambda: mobilenet_v2(STAGES[:3], last=64, classes=10), IMAGE),
    ("densenet121", lambda: densenet121((2, 2), growth=8, classes=10), IMAGE),
    ("vit", lambda: vit_b_16(layers=2, hidden=64, heads=4, image=32, classes=10), IMAGE),
    ("mlp", mlp, IMAGE[:, 0, 0, :8]),
    ("residual_block", residual_block, IMAGE.view(2, 3, 4, 16, 16)[:, 0, :, :8, :8]),
    ("cat_pool_net", cat_pool_net, IMAGE[:, :, :8, :8]),
]


@pytest.mark.parametrize(("make", "count"), PUBLISHED)
def test_parameter_count_is_the_published_one(make: Callable[[], nn.Module], count: int) -> None:
    with torch.device("meta"):
        model = make()
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(("make", "x"), [pytest.param(*rest, id=name) for name, *rest in SMALL])
def test_small_version_is_reproducible_and_keeps_its_signal(
    make: Callable[[], nn.Module], x: Tensor
) -> None:
    state = torch.get_rng_state()
    model = make()
    assert not model.training
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        y = model(x)
        assert torch.equal(y, make()(x))
    assert 0.01 < (y[0] - y[1]).std() < 100


def test_both_spellings_of_attention_agree() -> None:
    tokens, mask = bert_inputs(BERT_TINY, batch=2)
    fused = BertConfig(
        layers=2, hidden=64, heads=4, vocabulary=128, positions=32, fused_attention=True
    )
    with torch.no_grad():
        for a, b in zip(bert(BERT_TINY)(tokens, mask), bert(fused)(tokens, mask), strict=True):
            torch.testing.assert_close(a, b)
