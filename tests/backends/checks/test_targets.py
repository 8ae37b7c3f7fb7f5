from __future__ import annotations

import pytest
import torch

from quantfx.backends.checks import targets
from tests.refusals import refused

VNNI512 = {"avx512_f": True, "avx512_vnni": True, "avx_vnni": True}


@pytest.mark.parametrize(
    ("capabilities", "cap", "name"),
    [
        ({}, "", "avx2"),
        ({"avx512_f": True}, "", "avx512"),
        ({"avx_vnni": True}, "", "avx_vnni"),
        (VNNI512, "", "avx512_vnni"),
        ({**VNNI512, "amx_int8": True}, "", "amx"),
        ({**VNNI512, "amx_int8": True}, "AVX512_CORE_VNNI", "avx512_vnni"),
        ({**VNNI512, "amx_int8": True}, "DEFAULT", "amx"),
        (VNNI512, "AVX512_CORE", "avx512"),
        (VNNI512, "avx2", "avx2"),
        (VNNI512, "AVX2_VNNI", "avx_vnni"),
        ({"avx512_f": True}, "AVX512_CORE_VNNI", "avx512"),
        ({}, "AVX512_CORE", "avx2"),
    ],
)
def test_host(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], cap: str, name: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert targets.host().name == name


def test_only_targets_without_vnni_saturate() -> None:
    saturating = {name for name, target in targets.TARGETS.items() if target.saturates}
    assert saturating == {"avx2", "avx512"}


def test_unknown_names_get_the_nearest() -> None:
    with refused("unknown-name", site="avx512vnni", fix="avx512_vnni"):
        targets.get("avx512vnni")
