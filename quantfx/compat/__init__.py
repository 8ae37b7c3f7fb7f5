"""The PT2E names on quantfx's passes: change the import, keep the code."""

from __future__ import annotations

from torch.ao.quantization import ObserverOrFakeQuantize
from torch.ao.quantization.fake_quantize import (
    FakeQuantize,
    FakeQuantizeBase,
    FixedQParamsFakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    default_dynamic_fake_quant,
    default_fake_quant,
    default_fused_act_fake_quant,
    default_fused_per_channel_wt_fake_quant,
    default_fused_wt_fake_quant,
    default_per_channel_weight_fake_quant,
    default_weight_fake_quant,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
)
from torch.ao.quantization.observer import (
    FixedQParamsObserver,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    NoopObserver,
    ObserverBase,
    PerChannelMinMaxObserver,
    PlaceholderObserver,
    RecordingObserver,
    ReuseInputObserver,
    UniformQuantizationObserverBase,
)

from quantfx.compat.convert.convert import convert_pt2e
from quantfx.compat.convert.lower_to_x86 import lower_pt2e_quantized_to_x86
from quantfx.compat.exported.export_utils import (
    allow_exported_model_train_eval,
    move_exported_model_to_eval,
    move_exported_model_to_train,
)
from quantfx.compat.prepare.prepare import prepare_pt2e, prepare_qat_pt2e
from quantfx.compat.quantizers.composable import ComposableQuantizer
from quantfx.compat.quantizers.embedding import EmbeddingQuantizer
from quantfx.compat.quantizers.native_backend_config import (
    default_dynamic_float16_dtype_config,
    default_dynamic_int8_dtype_config,
    default_op_fp16_dtype_config,
    default_op_quint8_dtype_config,
    get_native_backend_config,
    get_native_backend_config_dict,
    get_test_only_legacy_native_backend_config,
    get_test_only_legacy_native_backend_config_dict,
    input_output_only_quint8_dtype_config,
    weight_only_quint4x2_dtype_config,
    weight_only_quint8_dtype_config,
    weighted_op_quint8_dtype_config,
)
from quantfx.compat.quantizers.x86_inductor import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
    get_x86_inductor_linear_dynamic_fp16_config,
)
from quantfx.compat.quantizers.xpu_inductor import (
    XPUInductorQuantizer,
    get_default_xpu_inductor_quantization_config,
)
from quantfx.compat.terms.derived_observer import DerivedObserverOrFakeQuantize
from quantfx.compat.terms.quantizer import Quantizer
from quantfx.compat.terms.specs import (
    DerivedQuantizationSpec,
    EdgeOrNode,
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationConfig,
    QuantizationSpec,
    QuantizationSpecBase,
    SharedQuantizationSpec,
)

__all__ = [
    "ComposableQuantizer",
    "DerivedObserverOrFakeQuantize",
    "DerivedQuantizationSpec",
    "EdgeOrNode",
    "EmbeddingQuantizer",
    "FakeQuantize",
    "FakeQuantizeBase",
    "FixedQParamsFakeQuantize",
    "FixedQParamsObserver",
    "FixedQParamsQuantizationSpec",
    "FusedMovingAvgObsFakeQuantize",
    "HistogramObserver",
    "MinMaxObserver",
    "MovingAverageMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver",
    "NoopObserver",
    "ObserverBase",
    "ObserverOrFakeQuantize",
    "PerChannelMinMaxObserver",
    "PlaceholderObserver",
    "QuantizationAnnotation",
    "QuantizationConfig",
    "QuantizationSpec",
    "QuantizationSpecBase",
    "Quantizer",
    "RecordingObserver",
    "ReuseInputObserver",
    "SharedQuantizationSpec",
    "UniformQuantizationObserverBase",
    "X86InductorQuantizer",
    "XPUInductorQuantizer",
    "allow_exported_model_train_eval",
    "convert_pt2e",
    "default_dynamic_fake_quant",
    "default_dynamic_float16_dtype_config",
    "default_dynamic_int8_dtype_config",
    "default_fake_quant",
    "default_fused_act_fake_quant",
    "default_fused_per_channel_wt_fake_quant",
    "default_fused_wt_fake_quant",
    "default_op_fp16_dtype_config",
    "default_op_quint8_dtype_config",
    "default_per_channel_weight_fake_quant",
    "default_weight_fake_quant",
    "disable_fake_quant",
    "disable_observer",
    "enable_fake_quant",
    "enable_observer",
    "get_default_x86_inductor_quantization_config",
    "get_default_xpu_inductor_quantization_config",
    "get_native_backend_config",
    "get_native_backend_config_dict",
    "get_test_only_legacy_native_backend_config",
    "get_test_only_legacy_native_backend_config_dict",
    "get_x86_inductor_linear_dynamic_fp16_config",
    "input_output_only_quint8_dtype_config",
    "lower_pt2e_quantized_to_x86",
    "move_exported_model_to_eval",
    "move_exported_model_to_train",
    "prepare_pt2e",
    "prepare_qat_pt2e",
    "weight_only_quint4x2_dtype_config",
    "weight_only_quint8_dtype_config",
    "weighted_op_quint8_dtype_config",
]
