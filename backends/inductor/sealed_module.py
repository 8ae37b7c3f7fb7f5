"""A module whose weights are in compiled code, with the methods that it supports or refuses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn

from quantfx.passes.errors import ModeError
from quantfx.passes.graph.checked_module import require_same_tensors
from quantfx.patterns.errors import QuantfxError


def call_outside(exported: str, reason: str) -> Callable[..., Any]:
    """Return a function that calls ``module.call_now(args, kwargs)`` inside an outer compile.

    Args:
        exported: Message of the error on export, which is not possible.
        reason: Why torch.compile leaves it alone.
    """

    def call(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.compiler.is_exporting():
            raise QuantfxError(exported, rule="not-exportable")
        return module.call_now(args, kwargs)

    disable: Any = torch.compiler.disable  # torch declares no types
    called: Callable[..., Any] = disable(call, reason=reason)
    return called


class SealedModule(nn.Module):
    """A module that may be part of others, without parameters and buffers.

    Methods that would change or read its weights raise. Other compilers run it unchanged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.training = False

    @abstractmethod
    def call_now(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute the module, outside of ``torch.compile``."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module, see its class.

        Raises:
            InputError: the module is not valid for the inputs.
            QuantfxError: ``torch.export`` calls it, or it cannot run here.
        """
        if torch.compiler.is_compiling():
            return _outside(self, args, kwargs)
        return self.call_now(args, kwargs)

    def train(self, mode: bool = True) -> Self:
        """Refuse training.

        Raises:
            ModeError: ``mode`` is True.
        """
        if mode:
            message = "a compiled module always computes as in evaluation"
            fix = "leave it out of train(), or train the model with quantfx.prepare_qat"
            raise ModeError(message, rule="eval-only", fix=fix)
        return super().train(mode)

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse to return weights, which are in the code.

        Raises:
            QuantfxError: always; says what to save instead.
        """
        message = "a compiled module has no state_dict: its weights are in its code."
        fix = (
            "save the model with result.save(path), and the state_dict() of modules around it "
            "without it"
        )
        raise QuantfxError(message, rule="no-state-dict", fix=fix)

    def __getstate__(self) -> NoReturn:
        """Refuse to be pickled.

        Raises:
            QuantfxError: always; says what to pickle or save instead.
        """
        fix = "use result.save(path), and quantfx.load(path).compile() where it is wanted"
        raise QuantfxError("compiled code cannot be pickled", rule="not-picklable", fix=fix)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        require_same_tensors(fn, "a compiled module", devices=("cpu",))
        apply: Any = super()._apply  # torch declares no types
        changed: Self = apply(fn, recurse)
        return changed


_outside = call_outside(
    "a compiled module cannot be exported: export result.quantized, or a model that has it as its "
    "part",
    reason="quantfx compiled it already",
)
