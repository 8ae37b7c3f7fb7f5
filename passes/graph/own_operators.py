"""quantfx's own operators, in torch's dispatcher under the namespace ``quantfx``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

from quantfx.patterns.schema import resolve_op

NAMESPACE = "quantfx"
_LIBRARIES: list[Any] = []  # operators live only as long as the library that defines them


def define(
    schema: str,
    run: Callable[..., Any],
    fake: Callable[..., Any] | None = None,
    *,
    key: str = "CPU",
) -> OpOverload[..., Any]:
    """Define an operator and return it; each may be defined once in a process.

    Args:
        schema: E.g. ``twice(Tensor x) -> Tensor``.
        run: Implementation of the operator.
        fake: Implementation on fake tensors, if different.
        key: Dispatch key of ``run``.
    """
    name = schema.partition("(")[0]
    library: Any = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]  # torch has none
    library.define(schema)
    library.impl(name, run, key)
    if fake is not None:
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=library)
    _LIBRARIES.append(library)
    return resolve_op(f"{NAMESPACE}.{name}.default")
