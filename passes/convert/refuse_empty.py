"""Refuse inputs without elements, where ranges are found in each call or a kernel fails."""

from __future__ import annotations

from dataclasses import replace

from torch.fx import GraphModule

from quantfx.passes.inputs.contract import contract_of, set_contract


def refuse_empty(module: GraphModule) -> None:
    """Exclude 0 from every free size of the inputs of ``module``, whichever of them matters.

    torch 2.13: the minimum of no elements is a RuntimeError, in ``choose_qparams`` and its
    replacements; and oneDNN's linears lose a dimension of an empty tensor.
    """
    contract = contract_of(module)
    if contract is not None:
        ranges = {name: (max(low, 1), high) for name, (low, high) in contract.ranges.items()}
        set_contract(module, replace(contract, ranges=ranges))
