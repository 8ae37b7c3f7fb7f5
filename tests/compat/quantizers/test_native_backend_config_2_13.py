"""torch's native BackendConfig as made from our rows, against torch 2.13's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.ao.quantization.backend_config.utils  # 2.13: without it, its own config raises
from torch import nn
from torch.ao.quantization import QConfigMapping, get_default_qconfig
from torch.ao.quantization.backend_config import native, x86
from torch.ao.quantization.backend_config.executorch import get_executorch_backend_config
from torch.ao.quantization.backend_config.fbgemm import get_fbgemm_backend_config
from torch.ao.quantization.backend_config.onednn import get_onednn_backend_config
from torch.ao.quantization.backend_config.qnnpack import get_qnnpack_backend_config
from torch.ao.quantization.backend_config.tensorrt import get_tensorrt_backend_config
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from quantfx import compat
from quantfx.backends.quantized.rows import native_variant

FUSER = "fuser_method"


def without_closures(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows; a function that torch makes anew in each call stands for itself by name."""

    def plain(method: Callable[..., Any]) -> Any:
        return "sequential" if "<locals>" in method.__qualname__ else method

    return [row | ({FUSER: plain(row[FUSER])} if FUSER in row else {}) for row in config["configs"]]


@pytest.mark.parametrize(
    "name", ["get_native_backend_config_dict", "get_test_only_legacy_native_backend_config_dict"]
)
def test_dictionaries_are_equal_to_those_of_torch(name: str) -> None:
    theirs, ours = getattr(native, name)(), getattr(compat, name)()
    assert ours["name"] == theirs["name"]
    assert without_closures(ours) == without_closures(theirs)
    assert len(ours["configs"]) == 194


def test_functions_that_fuse_do_the_same() -> None:
    theirs = {
        config.pattern: config.fuser_method
        for config in native.get_native_backend_config().configs
        if config.fuser_method is not None
    }
    ours = compat.get_native_backend_config()
    compared = 0
    for config in ours.configs:
        method = config.fuser_method
        if method is None or "<locals>" not in method.__qualname__:
            continue
        pattern: Any = config.pattern
        kind = pattern[0]
        layer = kind(2) if "BatchNorm" in kind.__name__ else kind(2, 2, *[1][: "Conv" in str(kind)])
        relu = nn.ReLU()
        fused, expected = method(False, layer, relu), theirs[pattern](False, layer, relu)
        assert type(fused) is type(expected)
        assert list(fused) == list(expected) == [layer, relu]
        compared += 1
    assert compared >= 6


def test_the_dtype_configs_are_those_of_torch() -> None:
    names = [name for name in dir(native) if name.endswith("_dtype_config")]
    assert len(names) == 8
    for name in names:
        assert getattr(compat, name) == getattr(native, name), name


def test_fx_graph_mode_takes_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    x = torch.randn(2, 3, 8, 8)
    qconfig: Any = get_default_qconfig("x86")  # type: ignore[no-untyped-call]
    mapping = QConfigMapping().set_global(qconfig)

    def converted(config: Any) -> torch.Tensor:
        prepared = prepare_fx(model, mapping, (x,), backend_config=config)
        prepared(x)
        result: torch.Tensor = convert_fx(prepared)(x)
        return result

    theirs = converted(native.get_native_backend_config())
    assert torch.equal(converted(compat.get_native_backend_config()), theirs)
    assert torch.equal(converted(compat.get_native_backend_config_dict()), theirs)


RELATIVES = {
    "fbgemm": (get_fbgemm_backend_config, 192),
    "x86": (x86.get_x86_backend_config, 192),
    "qnnpack": (get_qnnpack_backend_config, 190),
    "onednn": (get_onednn_backend_config, 221),
    "executorch": (get_executorch_backend_config, 84),
    "tensorrt": (get_tensorrt_backend_config, 149),
}


@pytest.mark.parametrize("name", RELATIVES)
def test_relatives_have_the_rows_of_torch(name: str) -> None:
    make, count = RELATIVES[name]
    theirs = make().configs
    rows = native_variant(name).rows
    assert len(rows) == len(theirs) == count
    # Rows of one kind by how many dtype configs, how they are observed, and the modules they name.
    assert sorted(map(_kind, rows)) == sorted(map(_kind_of_torch, theirs))


def _kind(row: Any) -> tuple[Any, ...]:
    observation = {"different": 0, "share": 1, "none": 2}[row.observation]
    dtypes = len(row.dtypes)
    return (observation, dtypes, row.root, row.reference, row.fused, row.qat, bool(row.index))


def _kind_of_torch(config: Any) -> tuple[Any, ...]:
    def name(module: Any) -> str:
        if module is None:
            return ""
        prefixes = {
            "torch.ao.nn.intrinsic.modules": "nni",
            "torch.ao.nn.intrinsic.qat": "nniqat",
            "torch.ao.nn.qat": "nnqat",
            "torch.ao.nn.quantized.reference": "nnqr",
            "torch.nn.modules": "nn",
        }
        place = next(each for each in prefixes if module.__module__.startswith(each))
        return f"{prefixes[place]}.{module.__name__}"

    return (
        config.observation_type.value,
        len(config.dtype_configs),
        name(config.root_module),
        name(config.reference_quantized_module),
        name(config.fused_module),
        name(config.qat_module),
        bool(config._input_type_to_index),
    )
