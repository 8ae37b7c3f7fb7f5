"""Warn when plain Inductor compiles a q/dq graph to float code."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from quantfx.patterns.errors import warn


def warn_of_plain_inductor(module: GraphModule) -> None:
    """Make ``torch.compile(module)`` warn that it makes no int8 kernels.

    Without freezing Inductor silently compiles quantize, dequantize and float arithmetic, slower
    than the float model; ``options={"freezing": True}`` comes too late in torch 2.13. The warning
    is in a hook of the module, which Dynamo runs once, while it traces.
    """
    constant: Any = torch.compiler.assume_constant_result  # torch declares no types
    constant(_look)  # marked so that Dynamo runs it instead of tracing it
    module.register_forward_pre_hook(_when_called)


def _when_called(_: nn.Module, __: tuple[Any, ...]) -> None:
    if torch.compiler.is_compiling():
        _look()


def _look() -> None:
    # Here, as Dynamo is running; importing quantfx does not import Dynamo.
    from quantfx.backends.inductor.torch_internals import compiling_backend, inductor_freezes

    if compiling_backend() == "inductor" and not inductor_freezes():
        warn(
            "Inductor compiles a q/dq graph without freezing, to float code: no int8 kernel, "
            "and slower than the model was.",
            rule="plain-inductor",
            fix=(
                "use quantfx's Result.compile(), or torch.compile(quantized, "
                "backend='quantfx_lower')"
            ),
            stacklevel=2,
        )
