from __future__ import annotations

import pytest

from quantfx.tools.bench.onednn_verbose import Execution, parse_verbose
from tests.refusals import refused

# Recorded from torch 2.13 (oneDNN 3.12) on a CPU with AVX512-VNNI.
RECORDED = """\
onednn_verbose,v1,info,oneDNN v3.12.0 (commit 80afa71049cd69a3df32adcccb623b12cd7baa22)
onednn_verbose,v1,info,cpu,isa:Intel AVX-512 with Intel DL Boost and bfloat16 support
onednn_verbose,v1,primitive,info,template:timestamp,operation,engine,primitive,implementation,prop_kind,memory_descriptors,attributes,auxiliary,problem_desc,exec_time
USDT:2026-11-24 23:40:44 3322:3322 SyncActivityProfilerHandler.cpp:52] profiler_start
onednn_verbose,v1,1795563644925.479004,primitive,exec,cpu,convolution,brgconv_1x1:avx512_core_vnni,forward_inference,src:u8::blocked:acdb::f0 wei:s8:a:blocked:AcdB16a4b::f8:zpm1 bia:f32:a:blocked:a::f0 dst:f32::blocked:acdb::f0,attr-scratchpad:user attr-scales:src0:0:f32+wei:1:f32 attr-zero-points:src0:0:s32 attr-post-ops:sum+eltwise_relu,alg:convolution_direct,mb4_ic16oc16_ih32oh32kh1sh1dh0ph0_iw32ow32kw1sw1dw0pw0,0.00708008
onednn_verbose,v1,1795563644925.570068,primitive,exec,cpu,matmul,brg_matmul:avx512_core_vnni,undef,src:u8:a:blocked:ab::f0 wei:s8:p:blocked:AB16a64b4a::f8:zpm2 bia:f32:a:blocked:ab::f0_mask2 dst:f32:a:blocked:ab::f0,attr-scratchpad:user attr-scales:src0:0:f32+wei:2:f32,,4x16:16x10,0.00292969
"""


def test_executions_are_read_and_other_lines_passed_over() -> None:
    assert parse_verbose(RECORDED) == (
        Execution(
            start=1795563644925.479004,
            kind="convolution",
            implementation="brgconv_1x1:avx512_core_vnni",
            problem="mb4_ic16oc16_ih32oh32kh1sh1dh0ph0_iw32ow32kw1sw1dw0pw0",
            milliseconds=0.00708008,
        ),
        Execution(
            start=1795563644925.570068,
            kind="matmul",
            implementation="brg_matmul:avx512_core_vnni",
            problem="4x16:16x10",
            milliseconds=0.00292969,
        ),
    )


def test_creations_are_no_executions() -> None:
    line = RECORDED.splitlines()[-1].replace(",exec,", ",create:cache_hit,")
    assert parse_verbose(line) == ()


@pytest.mark.parametrize(
    ("old", "new"), [("1795563644925.570068,", ""), (",undef,", ",undef,more,")]
)
def test_lines_of_another_format_are_refused(old: str, new: str) -> None:
    line = RECORDED.splitlines()[-1].replace(old, new)
    with refused("unreadable-line", says="ONEDNN_VERBOSE_TIMESTAMP=1"):
        parse_verbose(line)
