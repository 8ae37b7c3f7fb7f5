"""Compile networks in a process of its own; not a test module, ``test_independence`` starts it.

Usage: independence.py ROUTE FOLDER NETWORK... The route ``onednn`` runs with Inductor's q/dq patterns
switched off before it loads them, as torch 2.14 and later have none; ``inductor`` runs on nothing else.
Writes to a file of FOLDER for each network the output, the kernels that were called and what the
patterns counted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch._inductor.fx_passes.mkldnn_fusion as mkldnn_fusion
import torch._inductor.fx_passes.quantization as quantization
from torch._dynamo.utils import counters
from torch.utils._pytree import tree_leaves

from quantfx.backends.inductor.compile import CompiledModule
from quantfx.tools.models.bert import BertConfig, bert, bert_inputs
from quantfx.tools.models.mobilenet_v2 import mobilenet_v2
from quantfx.tools.models.resnet import resnet18, resnet50
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.backends.qdq_patterns import has_qdq_patterns
from tests.models.small import cat_pool_net, residual_block

REGISTER = "_register_quantization_weight_pack_pass"
SMALL_BERT = BertConfig(layers=1, hidden=32, heads=2, vocabulary=50, positions=16)
SIX_LAYERS = BertConfig(layers=6)


def images(size: int, count: int = 1, channels: int = 3) -> tuple[torch.Tensor]:
    """Return images of noise."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(count, channels, size, size, generator=generator),)


NETWORKS: dict[str, Any] = {
    "cat_pool_net": lambda: (cat_pool_net(), images(16, count=2)),
    "residual_block": lambda: (residual_block(), images(8, channels=4)),
    "resnet18_small": lambda: (seeded(lambda: resnet18((1, 1), width=8)), images(32)),
    "bert_small": lambda: (seeded(lambda: bert(SMALL_BERT)), bert_inputs(SMALL_BERT, 2, 8)),
    "resnet50": lambda: (seeded(resnet50), images(224)),
    "mobilenet_v2": lambda: (seeded(mobilenet_v2), images(224)),
    "bert": lambda: (seeded(lambda: bert(SIX_LAYERS)), bert_inputs(SIX_LAYERS, 1, 128)),
}


def main(route: Any, folder: str, *networks: str) -> None:
    """Quantize, compile by ``route``, run, and write what came out, network by network."""
    if route == "onednn" and has_qdq_patterns():
        for module in (quantization, mkldnn_fusion):
            assert REGISTER in vars(module)
            vars(module)[REGISTER] = lambda: None
    torch.set_num_threads(2)
    for network in networks:
        compile_network(network, route, Path(folder, f"{network}-{route}.pt"))


def compile_network(network: str, route: Any, file: Path) -> None:
    """Quantize one, compile it, run it, and write what came out."""
    counters.clear()
    torch.compiler.reset()
    model, inputs = NETWORKS[network]()
    result = unchecked.quantize(model.eval(), inputs)
    if route == "onednn":
        compiled: Any = result.compile()
    else:
        compiled = CompiledModule(result.quantized)
    torch.save(
        {
            "outputs": tree_leaves(compiled(*inputs)),
            "kernels": {row.kind: dict(row.compiled_kernels) for row in result.report.rows},
            "packed_by_patterns": sum(
                count for name, count in counters["inductor"].items() if "prepack_matcher" in name
            ),
            "torchao": any(name.partition(".")[0] == "torchao" for name in sys.modules),
        },
        file,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
