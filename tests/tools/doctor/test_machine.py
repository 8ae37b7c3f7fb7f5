from __future__ import annotations

import pytest
import torch

from quantfx.tools.doctor import machine as doctor_machine
from quantfx.tools.doctor.check import Check

VNNI = {"avx2": True, "avx512_f": True, "avx512_vnni": True, "cpu_name": "a CPU"}


@pytest.fixture(autouse=True)
def no_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in doctor_machine.ISA_CAPS:
        monkeypatch.delenv(name, raising=False)


def able(monkeypatch: pytest.MonkeyPatch, **capabilities: object) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


def test_all_of_them_on_this_machine() -> None:
    checks = [check() for check in doctor_machine.CHECKS]
    assert len({check.name for check in checks}) == len(checks)
    assert "problem" not in {check.status for check in checks}


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("2.13.0+cpu", "ok"),
        ("2.13.1", "ok"),
        ("2.14.1+cu130", "ok"),
        ("2.15.0", "ok"),
        ("2.16.0.dev20261101", "note"),
        ("2.1.3", "note"),
    ],
)
def test_torch(monkeypatch: pytest.MonkeyPatch, version: str, status: str) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    check = doctor_machine.torch_version()
    assert check.status == status
    assert check.found.startswith(version)


def test_instructions_that_are_there_and_those_that_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    able(monkeypatch, **VNNI, avx512_bw=True)
    check = doctor_machine.isa()
    assert check.status == "ok"
    assert check.found == (
        "avx2 avx512_f avx512_vnni; without avx_vnni amx_int8 avx512_bf16 amx_bf16"
    )
    assert doctor_machine.cpu().found.startswith("a CPU, ")


def test_another_kind_of_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    able(monkeypatch)
    check = doctor_machine.isa()
    assert (check.status, check.found.partition(";")[0]) == ("note", "none that matter")


@pytest.mark.parametrize("name", doctor_machine.ISA_CAPS)
def test_a_cap_is_shown_with_how_to_lift_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert doctor_machine.isa_cap() == Check("oneDNN's ISA cap", "ok", "none")
    monkeypatch.setenv(name, "AVX2")
    check = doctor_machine.isa_cap()
    assert (check.status, check.found) == ("note", f"{name}=AVX2")
    assert check.fix.endswith(f"unset {name}")


def test_the_target_says_how_sums_are_kept_right(monkeypatch: pytest.MonkeyPatch) -> None:
    able(monkeypatch, **VNNI)
    check = doctor_machine.target()
    assert (check.status, check.found) == (
        "ok",
        "avx512_vnni, its sums do not saturate; full range: products add up in 32 bits",
    )
    able(monkeypatch, avx2=True)
    check = doctor_machine.target()
    assert check.status == "note"
    assert check.found == (
        "avx2; no VNNI: 16-bit sums saturate, so weights have pair-bounded scales"
    )


def test_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    able(monkeypatch, **VNNI)
    assert doctor_machine.bfloat16().status == "note"
    able(monkeypatch, **VNNI, avx512_bf16=True)
    assert doctor_machine.bfloat16().status == "ok"


def test_a_problem_without_a_fix_is_none_of_ours() -> None:
    with pytest.raises(ValueError, match="CPU: a problem comes with its fix"):
        Check("CPU", "problem", "on fire")
