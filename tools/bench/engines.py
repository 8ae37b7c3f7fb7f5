"""The engines that ``quantfx bench`` compares, as data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from quantfx.patterns.errors import QuantfxError, unknown_name
from quantfx.tools.bench import (
    engine_inductor,
    engine_onnxruntime,
    engine_openvino,
    engine_quantfx,
    engine_torchao,
)
from quantfx.tools.bench.engine import Engine

# The engine that all others are compared with.
BASELINE = Engine("fp32", "float32, Inductor with freezing", engine_inductor.build_float32)

ENGINES = {
    engine.name: engine
    for engine in (
        BASELINE,
        Engine("bf16", "bfloat16 autocast, Inductor", engine_inductor.build_bfloat16),
        Engine("torchao", "PT2E static int8, Inductor", engine_torchao.build),
        Engine("onnxruntime", "static QDQ, U8S8 per channel", engine_onnxruntime.build),
        Engine("openvino", "NNCF static int8", engine_openvino.build),
        Engine("quantfx", "static int8", engine_quantfx.build),
        Engine("quantfx-module", "static int8, no compiler", engine_quantfx.build_module),
        Engine(
            "quantfx-onednn",
            "static int8, torch's operators",
            partial(engine_quantfx.build, kernels="onednn"),
        ),
        Engine(
            "quantfx-cpp", "static int8, C++ wrapper", partial(engine_quantfx.build, wrapper="cpp")
        ),
        Engine(
            "quantfx-aot", "static int8, AOTInductor", partial(engine_quantfx.build, wrapper="aot")
        ),
        Engine("quantfx-bf16", "static int8, bfloat16 between", engine_quantfx.build_bfloat16),
        Engine(
            "quantfx-dynamic",
            "dynamic int8 linears",
            partial(engine_quantfx.build, config="dynamic"),
        ),
    )
}

# Engines to break down: torch's operators, then prepared plans in their place. Both pass torch's
# dispatcher, which the profiler needs; operators of generated C++ do not.
BROKEN_DOWN = (ENGINES["quantfx-onednn"], ENGINES["quantfx"])

DEFAULT = ("fp32", "bf16", "torchao", "onnxruntime", "openvino", "quantfx")


def choose_engines(names: Sequence[str]) -> tuple[Engine, ...]:
    """Return the engines of these names, each once, always including the baseline.

    Raises:
        QuantfxError: there is no engine of a name; names the nearest.
    """
    for name in names:
        if name not in ENGINES:
            raise unknown_name(QuantfxError, "engine", name, ENGINES)
    return tuple(ENGINES[name] for name in dict.fromkeys((BASELINE.name, *names)))
