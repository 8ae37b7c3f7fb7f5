"""Let no inputs without elements in, where ranges are found in each call or a kernel fails."""

from __future__ import annotations

from dataclasses import replace

from torch.fx import GraphModule

from quantfx.passes.inputs.contract import contract_of, set_contract


def refuse_empty(module: GraphModule) -> None:
    """Let no free size of the inputs of ``module`` be 0, whichever it is that this depends on.

    torch 2.13: the smallest of no elements is a RuntimeError, in ``choose_qparams`` and in what
    stands for it; and oneDNN's linears lose a dimension of what is empty.
    """
    contract = contract_of(module)
    if contract is not None:
        ranges = {name: (max(low, 1), high) for name, (low, high) in contract.ranges.items()}
        set_contract(module, replace(contract, ranges=ranges))
