"""The checks of ``quantfx doctor`` of the runtime of prepared plans."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from quantfx.backends.direct.runtime.library import Runtime, runtime
from quantfx.backends.direct.runtime.plan import Plan, Store
from quantfx.backends.direct.runtime.steps import Pointwise, Program
from quantfx.backends.direct.runtime.values import Buffer, Value, in_order
from quantfx.tools.doctor.check import Check

NAME = "direct runtime"
_WITHOUT = "kernels='auto' takes torch's own operators until then"


def direct_checks() -> Iterator[Check]:
    """Yield whether prepared plans run here; the first call on a machine compiles the runtime."""
    found = runtime()
    if found.reason:
        yield Check(NAME, "note", found.reason, _WITHOUT)
        return
    if _computes(found):
        yield Check(NAME, "ok", f"{found.onednn}, {found.compiler}")
    else:
        fix = "empty the cache of quantfx, and report it if that does not help"
        yield Check(NAME, "problem", f"{found.onednn} computes wrongly", fix)


def _computes(found: Runtime) -> bool:
    """Whether a plan of one step computes correctly."""
    assert found.library is not None, "there is a reason if there is none"
    layout = in_order(torch.Size([4]), torch.float32)
    source, result = (Value(Buffer(16, place), layout) for place in ("input", "output"))
    program = Program([Pointwise(source=source, other=source, combine="add", result=result)])
    program.outputs.append(layout)
    x = torch.arange(4.0)
    (doubled,) = Plan(Store(found.library), program, 1).run([x])
    return torch.equal(doubled, x + x)
