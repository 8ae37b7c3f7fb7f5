"""Report failures of torch's compiler in one sentence, with advice."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from quantfx.backends.inductor.torch_internals import (
    BackendCompilerFailed,
    InternalTorchDynamoError,
)
from quantfx.patterns.errors import QuantfxError


@contextmanager
def compiler_errors() -> Generator[None]:
    """Report failures of torch's compiler in one sentence; its own error is the cause.

    Raises:
        QuantfxError: the compiler failed.
    """
    try:
        yield
    except QuantfxError:
        raise
    except Exception as error:
        inner = error.inner_exception if isinstance(error, BackendCompilerFailed) else error
        message = f"torch cannot compile this model ({_first_line(inner)})"
        fix = "use result.module, which runs the same kernels without a compiler"
        raise QuantfxError(message, rule="compiler-failed", fix=fix) from error


@contextmanager
def inductor_errors(where: str) -> Generator[None]:
    """Report failures of Inductor in one sentence; pass Dynamo's own errors on.

    Args:
        where: Name of what is compiled.

    Raises:
        QuantfxError: the compiler failed.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("torch._inductor"):
            raise
        message = f"torch cannot compile the int8 graph of {where} ({_first_line(error)})"
        fix = "use the module of quantfx.quantize, which runs them without a compiler"
        raise QuantfxError(message, rule="compiler-failed", site=where, fix=fix) from error


@contextmanager
def dynamo_errors() -> Generator[None]:
    """Add advice where Dynamo of torch 2.13 fails on sizes that depend on data."""
    try:
        yield
    except InternalTorchDynamoError as error:
        raise QuantfxError(
            "torch cannot compile this model, in which sizes depend on data, for inputs of these "
            f"shapes ({_first_line(error)})",
            rule="compiler-failed",
            fix="call result.module with them",
        ) from error


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
