from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from quantfx.passes.capture.capture import capture
from quantfx.passes.errors import CaptureError

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
IMAGE = torch.zeros(2, 3, 8, 8)


class Calls(nn.Module):
    """A linear, and whatever ``function`` does with it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(self.linear, *args)


class DynamicCache:
    """A stand-in for the class of that name in transformers."""


def refusal(model: nn.Module, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(CaptureError) as error:
        capture(model.eval(), args, **kwargs)
    assert isinstance(error.value.__cause__, Exception)
    return str(error.value)


class Fixed(nn.Module):
    """A size that the model fixes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).view(2, 4, 8, -1)


def test_torchs_suggested_fixes_are_kept_and_its_logs_are_not() -> None:
    text = refusal(Fixed(), IMAGE, dynamic_shapes=({2: Dim("height", min=2)},))
    assert text.startswith("torch.export rejects Fixed: UserError: Constraints violated (height)\n")
    assert "specialized it to be a constant (8)" in text
    assert text.endswith("Suggested fixes:\n  height = 8")
    for noise in ("TORCH_LOGS", "draft_export", "quantfx.auto"):
        assert noise not in text


def test_a_path_that_depends_on_data_is_shown_and_auto_named() -> None:
    def branches(linear: nn.Linear, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x + 1
        return linear(x)

    text = refusal(Calls(branches), X)
    assert "in branches: if x.sum() > 0:" in text
    assert "branches on values in tensors" in text
    assert "quantfx.auto(model)" in text
    assert 'backend="quantfx_x86"' in text
    for noise in ("TORCH", "https://", "unhinted", "_export/", "watch_layout"):
        assert noise not in text


@pytest.mark.parametrize(
    "function",
    [
        lambda linear, x: linear(torch.from_numpy(x.detach().numpy())),
        lambda linear, x: DynamicCache(),
    ],
)
def test_auto_is_named_wherever_the_model_itself_runs(function: Callable[..., Any]) -> None:
    assert "quantfx.auto(model)" in refusal(Calls(function), X)


def test_a_model_that_fails_by_itself_is_told_so() -> None:
    text = refusal(Calls(lambda linear, x: linear(x[:, :7])), X)
    assert "Calls itself fails on these inputs: RuntimeError: mat1 and mat2 shapes" in text
    assert "quantfx.auto" not in text


def test_caches_are_left_out() -> None:
    text = refusal(Calls(lambda linear, x: (linear(x), DynamicCache())), X)
    assert "example_kwargs={'use_cache': False}, or model.config.use_cache = False" in text
    assert "register_pytree_node(DynamicCache, flatten, unflatten" in text
    assert text.count("use_cache = False") == 1


@pytest.mark.parametrize("of_decoder", [True, False])
def test_torchs_transformers_are_told_which_flag_decides(of_decoder: bool) -> None:
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    x = torch.randn(2, 3, 8)
    model: nn.Module
    if of_decoder:
        layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
        model = nn.TransformerDecoder(layer, 1)
        kwargs: dict[str, Any] = {"tgt_mask": mask}
        args = (x, x)
    else:
        model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
        kwargs = {"tgt_mask": mask, "src_mask": mask}
        args = (x, x)
    text = refusal(model, *args, example_kwargs=kwargs)
    flags = "tgt_is_causal=True" if of_decoder else "src_is_causal=True and tgt_is_causal=True"
    assert f"give {flags} for a causal mask, else False" in text
    decided = dict.fromkeys(("tgt_is_causal",) if of_decoder else _FLAGS, True)
    capture(model.eval(), args, {**kwargs, **decided}, compare=False)


_FLAGS = ("src_is_causal", "tgt_is_causal")


def test_training_is_not_told_of_auto_which_does_not_train() -> None:
    def branches(linear: nn.Linear, x: Tensor) -> Tensor:
        return linear(x + 1) if x.sum() > 0 else linear(x)

    with pytest.raises(CaptureError) as error:
        capture(Calls(branches).train(), (X,), training=True)
    assert "branches on values in tensors" in str(error.value)
    assert "quantfx.auto" not in str(error.value)
