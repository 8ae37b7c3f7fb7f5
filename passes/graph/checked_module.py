"""A graph module whose calls are checked against its input contract."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Self

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.errors import InputError, ModeError, PipelineError
from quantfx.passes.graph.facts import TRAINABLE, facts_of
from quantfx.passes.inputs.check import InputCheck
from quantfx.passes.inputs.contract import InputContract, contract_of, set_contract
from quantfx.passes.inputs.fits_traced import fits_traced


class CheckedModule(GraphModule):
    """Graph module that raises ``InputError`` for inputs that its graph is not valid for.

    The check is part of ``forward``, so it also runs where a compiler inlines the module into
    another one. Copies and unpickled modules check as well. A graph without a contract takes any
    inputs.
    """

    _input_check: InputCheck | None = None

    def recompile(self) -> Any:
        """Generate the code of ``forward``, and put the check in front of it."""
        code = super().recompile()
        kind: Any = type(self)  # torch.fx creates a class for each module
        kind.forward = _put_check_before(kind.forward)
        return code

    def check_inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check the inputs of a call.

        Raises:
            InputError: the graph is not valid for them; names one.
        """
        contract = contract_of(self)
        if contract is None or not contract.checked:
            return
        if torch.compiler.is_compiling():
            if not fits_traced(contract, args, kwargs):
                # Dynamo then runs the call without compiling it, and the check below gives a full
                # message.
                raise InputError(
                    "the graph was not captured for these inputs", rule="input-structure"
                )
            return
        check = self._input_check
        if check is None or check.contract is not contract:
            check = input_check(self, contract)
            self.__dict__["_input_check"] = check
        check(args, kwargs)

    def train(self, mode: bool = True) -> Self:
        """Refuse training, unless the graph was captured for it.

        Raises:
            ModeError: ``mode`` is True, and the graph was captured in eval mode.
        """
        if mode and contract_of(self) is not None and TRAINABLE not in facts_of(self):
            message = "this graph was captured in eval mode and computes that in any mode"
            fix = (
                "use prepare_qat, or capture with training=True, to train; leave it out of train()"
            )
            raise ModeError(message, rule="captured-mode", fix=fix)
        super().train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Refuse other dtypes if kernels or rounding depend on the present dtypes."""
        facts = facts_of(self)
        if "lowered" in facts:
            require_same_tensors(fn, "a graph of int8 kernels", devices=("cpu", "xpu", "meta"))
        elif "qdq" in facts:
            require_same_tensors(fn, "a quantized graph")
        apply: Callable[..., object] = super()._apply  # it has no types
        apply(fn, recurse)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the contract too; torch.fx would lose it.

        Raises:
            PipelineError: the graph has observers: torch.fx would lose their sites.
        """
        if "observed" in facts_of(self):
            message = "a graph that was prepared for calibration is not pickled"
            fix = "save its state_dict(), prepare the model again, and load it there"
            raise PipelineError(message, rule="not-picklable", fix=fix)
        return _restore, (super().__reduce__(), contract_of(self))


def require_same_tensors(
    change: Callable[[Tensor], Tensor], what: str, *, devices: tuple[str, ...] = ()
) -> None:
    """Refuse what ``half``, ``to`` and similar methods would do to a quantized module.

    Args:
        change: The change to each tensor of the module.
        what: What the message calls the module.
        devices: Device types that the module can be on; all by default.

    Raises:
        ModeError: floats would change dtype, or tensors would change device.
    """
    before = torch.zeros(1)
    after = change(before)
    if after.dtype != before.dtype:
        message = f"{what} keeps its dtypes, and this would make its floats {after.dtype}"
        fix = (
            "change the inputs and results around it, quantize a model that was cast before, "
            "or use result.compile(autocast=torch.bfloat16), which has bfloat16 between the "
            "kernels"
        )
        raise ModeError(message, rule="fixed-dtype", site=what, fix=fix)
    if devices and after.device.type not in devices:
        message = f"{what} runs on {devices[0]} and cannot move to {after.device}"
        fix = "use result.quantized, the q/dq graph, which runs anywhere, slower"
        raise ModeError(message, rule="fixed-device", site=what, fix=fix)


def input_check(module: GraphModule, contract: InputContract) -> InputCheck:
    """Return the check of calls of ``module`` against ``contract``."""
    return InputCheck(contract, inspect.signature(module.forward))


def _put_check_before(generated: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with its own code object that runs the check, then ``generated``.

    Dynamo limits recompilation per code object: one code object for all modules would reach the
    limit.
    """

    def forward(self: CheckedModule, *args: Any, **kwargs: Any) -> Any:
        self.check_inputs(args, kwargs)
        return generated(self, *args, **kwargs)

    own = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    return functools.update_wrapper(own, generated)


def _restore(reduced: tuple[Any, ...], contract: InputContract | None) -> CheckedModule:
    from quantfx.passes.graph.clone import clone_as, recompile  # it creates modules of this kind

    make, arguments = reduced
    plain: GraphModule = make(*arguments)
    module = clone_as(plain, CheckedModule)
    set_contract(module, contract)
    recompile(module)
    return module
