"""What ``quantize`` returns: the q/dq graph, the report, and the way to a compiled module."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule

from quantfx.backends import targets
from quantfx.backends.backend import Backend
from quantfx.backends.inductor import CompiledModule, compile_module, lowered_rows
from quantfx.backends.range_check import affine_weights, saturating_sites
from quantfx.passes.equal_sites import repeated_kinds
from quantfx.passes.errors import ContractError
from quantfx.passes.report import Report
from quantfx.patterns.errors import QuantfxError


class Result:
    """A quantized model.

    Attributes:
        quantized: The q/dq graph: int8 weights, float arithmetic, runs anywhere.
        report: What was planned, converted and, after ``compile``, lowered.
        backend: The backend that made it.
    """

    def __init__(
        self,
        quantized: GraphModule,
        report: Report,
        backend: Backend,
        example_inputs: tuple[Any, ...],
        example_kwargs: dict[str, Any],
    ) -> None:
        self.quantized = quantized
        self.report = report
        self.backend = backend
        self._example_inputs = example_inputs
        self._example_kwargs = example_kwargs

    def compile(
        self, *, strict: bool = True, autocast: torch.dtype | None = None
    ) -> CompiledModule:
        """Return the model compiled by Inductor onto oneDNN's int8 kernels.

        Freezing and no_grad, without which Inductor silently stays in float, are set for the
        compiled module's own calls only. It is compiled here, for the example inputs; other
        shapes compile when they first come.

        Args:
            strict: Refuse a compiled module in which a planned site did not reach its kernel.
            autocast: ``torch.bfloat16`` to compute in it between the int8 kernels, which then
                return it (int8-mixed-bf16); needs a CPU with bfloat16 instructions.

        Raises:
            QuantfxError: the backend is for another device, or this CPU cannot autocast so.
            ContractError: a planned site was not lowered, or its integer sums would saturate on
                this CPU.
        """
        if not self.backend.runs_on_cpu:
            raise QuantfxError(
                f"graphs of backend '{self.backend.name}' are not for the int8 kernels of this "
                "machine's CPU. Run result.quantized, the same arithmetic in float, or quantize "
                "with backend='x86' to compile here"
            )
        if autocast is not None:
            targets.require_autocast(autocast)
        _require_symmetric(self.quantized)
        if strict and targets.host().saturates:
            _require_in_range(self.quantized)
        compiled, reached = compile_module(
            self.quantized, self._example_inputs, self._example_kwargs, autocast
        )
        rows = lowered_rows(self.report.rows, reached, repeated_kinds(self.quantized))
        self.report = self.report.with_lowered(rows)
        short = [row for row in self.report.rows if (row.lowered or 0) < row.planned]
        if short and strict:
            counts = ", ".join(f"{row.label} {row.lowered or 0}/{row.planned}" for row in short)
            raise ContractError(
                f"planned sites did not reach their int8 kernel: {counts}. Inductor has no pattern "
                "for them there, so they would run slower than float; leave their templates out "
                "with backend.without_templates(...), or accept it with compile(strict=False)"
            )
        return compiled


def _require_symmetric(quantized: GraphModule) -> None:
    sites = affine_weights(quantized)
    if sites:
        raise ContractError(
            f"the int8 kernels know no zero points of weights and would be silently wrong: "
            f"{', '.join(map(str, sites[:5]))}. Bind a symmetric weight spec"
        )


def _require_in_range(quantized: GraphModule) -> None:
    sites = saturating_sites(quantized)
    if sites:
        named = ", ".join(map(str, sites[:5])) + (
            f" and {len(sites) - 5} more" if sites[5:] else ""
        )
        raise ContractError(
            f"{len(sites)} site(s) would saturate on this CPU ({targets.host().name}, no VNNI) and "
            f"be silently wrong: {named}. Quantize for it with target='host', or accept it with "
            "compile(strict=False)"
        )
