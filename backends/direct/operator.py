"""The operator ``quantfx::direct_region``, by which compilers call a region.

It takes the region's constants and its graph as text, so that a graph that calls it is complete and
functional. Prepared objects (plans, packed weights) belong to the first constant and are freed with
it; the process keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from quantfx.backends.direct.program_text import read_program
from quantfx.passes.graph.own_operators import define

if TYPE_CHECKING:
    from quantfx.backends.direct.region import Region

Form = tuple[tuple[int, ...], torch.dtype]

_KEY = "quantfx_regions"
_NAME = "direct_region"


class _Held(dict[str, Any]):
    """The regions of a tensor, by program; a copy of the tensor has none."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Held:
        return _Held()

    def __reduce__(self) -> tuple[type[_Held], tuple[()]]:
        return _Held, ()


@lru_cache(maxsize=1)
def region_operator() -> OpOverload[..., Any]:
    """Define the operator, once per process, and return it."""
    schema = f"{_NAME}(Tensor[] inputs, Tensor[] constants, str program) -> Tensor[]"
    return define(schema, _run, _fake)


def _run(inputs: list[Tensor], constants: list[Tensor], program: str) -> list[Tensor]:
    found: list[Tensor] = _prepared(constants, program)(*inputs)
    return found


def _prepared(constants: list[Tensor], program: str) -> Region:
    """Return the region of these constants, made at the first call."""
    from quantfx.backends.direct.region import Region

    held: _Held | None = getattr(constants[0], _KEY, None)
    if held is None:
        held = _Held()
        setattr(constants[0], _KEY, held)
    # Compilers may pass other objects for the same memory.
    where = tuple(each.data_ptr() for each in constants)
    found: tuple[tuple[int, ...], Region] | None = held.get(program)
    if found is None or found[0] != where:
        found = held[program] = (where, Region(read_program(program, constants)))
    return found[1]


def _fake(inputs: list[Tensor], constants: list[Tensor], program: str) -> list[Tensor]:
    forms = [tuple(_form(x) for x in tensors) for tensors in (inputs, constants)]
    if all(type(size) is int for form in forms[0] for size in form[0]):
        return [torch.empty(shape, dtype=dtype) for shape, dtype in _results(program, *forms)]
    graph: Callable[..., Any] = read_program(program, constants)
    return [torch.empty(x.shape, dtype=x.dtype) for x in graph(*inputs)]


def _form(tensor: Tensor) -> Form:
    return tensor.shape, tensor.dtype


@lru_cache(maxsize=64)
def _results(program: str, inputs: tuple[Form, ...], constants: tuple[Form, ...]) -> list[Form]:
    """Return the form of each output; compilers ask for it repeatedly."""

    def run() -> list[Form]:
        given, held = (
            [torch.empty(shape, dtype=dtype, device="meta") for shape, dtype in forms]
            for forms in (inputs, constants)
        )
        graph: Callable[..., Any] = read_program(program, held)
        return [_form(x) for x in graph(*given)]

    # Fake tensors, in whose mode the caller works, take thirty times as long; modes are per thread.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()
