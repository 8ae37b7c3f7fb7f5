"""Importing and using quantfx changes nothing of torch's but what ARCHITECTURE.md lists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

_CODE = """
import sys, warnings, logging
import torch
from torch import nn
import torch._dynamo.config, torch._inductor.config, torch._functorch.config
import torch._inductor.lowering, torch._inductor.decomposition, torch._decomp
from torch._dynamo.backends import registry
from torch._inductor.fx_passes import joint_graph, post_grad

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
x = torch.rand(4, 16)
with torch.no_grad():
    torch.compile(model)(x)  # what Inductor sets up by itself when it is first used
    with torch._inductor.config.patch(freezing=True):
        torch.compile(nn.Sequential(nn.Linear(16, 16)).eval())(x)
list(torch._dynamo.list_backends())  # entry points are looked up once
torch.compiler.reset()


def patterns(passes):
    return {key: len(found) for key, found in passes.patterns.items()}


def state():
    return {
        "dynamo config": torch._dynamo.config.save_config(),
        "inductor config": torch._inductor.config.save_config(),
        "functorch config": torch._functorch.config.save_config(),
        "backends": {name: value for name, value in registry._COMPILER_FNS.items() if value},
        "backend names": sorted(registry._BACKENDS),
        "lowerings": len([op for op in torch._inductor.lowering.lowerings if "quantfx" not in str(op)]),
        "decompositions": len(torch._inductor.decomposition.decompositions),
        "decomposition table": len(torch._decomp.decomposition_table),
        "joint patterns": patterns(joint_graph.patterns),
        "post-grad patterns": [patterns(each) for each in post_grad.pass_patterns],
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
                  torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "defaults": (torch.get_default_dtype(), torch.get_default_device()),
        "quantized engine": torch.backends.quantized.engine,
        "random": torch.get_rng_state().tolist(),
        "warnings": list(warnings.filters),
        "handlers": list(logging.getLogger().handlers),
        "path": list(sys.path),
        "hooks": list(sys.meta_path),
    }


def operators():
    return {(name.split("::")[0], name) for name in torch._C._dispatch_get_all_op_names()}


before, known = state(), operators()
import quantfx, quantfx.cli, quantfx.compat, quantfx.dynamo.compilers
assert state() == before, "import"
imported = operators() - known

result = quantfx.quantize(model, (x,), calibration=[x])
result.module(x)
result.compile()(x)
for name in ("quantfx_x86", "quantfx_native"):
    fast = torch.compile(model, backend=name, options={"calibration_batches": 1})
    fast(x), fast(x)
torch.compile(result.quantized, backend="quantfx_lower")(x)
auto = quantfx.auto(model, calibration_batches=1)
with torch.no_grad():
    auto(x), auto(x)
    auto.release_float_weights()
after = state()
ours = {"quantfx_x86", "quantfx_native", "quantfx_lower"}
assert {name for name in after["backends"] if name not in before["backends"]} == ours
after["backends"] = before["backends"]  # loaded from their entry points, as torch does for any
different = [key for key in before if after[key] != before[key]]
assert not different, {key: (before[key], after[key]) for key in different}
assert {space for space, _ in operators() - known} <= {"quantized_decomposed", "quantfx"}, (
    operators() - known
)
assert {name for space, name in imported if space != "quantized_decomposed"} == {
    "quantfx::unpack_halves"  # q/dq graphs and templates hold it
}, imported
assert "torchao" not in sys.modules
"""


def test_importing_and_using_quantfx_leaves_torch_as_it_was() -> None:
    subprocess.run([sys.executable, "-c", _CODE], check=True, cwd=ROOT)


@pytest.mark.sweep
def test_it_does_beside_torchs_own_pool_of_compilers() -> None:
    """As users have it: without what conftest.py sets for the other tests."""
    ours = {"TORCHINDUCTOR_COMPILE_THREADS", "TORCHINDUCTOR_VEC_ISA_OK"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    subprocess.run([sys.executable, "-c", _CODE], check=True, cwd=ROOT, env=environment)
