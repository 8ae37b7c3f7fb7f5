"""Every exception and warning that quantfx raises.

All derive from ``QuantfxError`` or ``QuantfxWarning``. The text says what is wrong and what to do.
Fields hold the same: ``rule`` is the short name of the broken rule; ``site`` is the node, module
path, input, argument or file that the text is about, or None; ``fix`` is what to write instead, or
"".

Rules:

    names: unknown-name, taken-name, ambiguous-name, name-form, missing-key, nested-name
    values: wrong-type, number-range, config-value, option-value, not-offered
    files: no-such-file, not-a-file, unreadable-file, unwritable-file, file-version, damaged-file,
        foreign-file, hostile-file, no-text-form, not-imported, file-ending
    templates: extends-itself, commuting-node, optional-node, node-cycle, one-result, dead-node,
        one-node, same-is-out, out-spec, quantized-role, derived-twice, spec-name, packed-role,
        template-check
    models: not-a-model, not-float, not-copyable, inference-mode, captured-mode, unseen-state,
        unseen-cache, cache-form, plain-state, packed-sequence, export-rejects, graph-fails,
        capture-differs, other-in-training, averaged-batches
    inputs: batch-form, batch-names, input-names, input-structure, input-type, input-dtype,
        input-shape, input-sizes, input-value, other-rows
    calibration: calibration-form, no-batches, not-prepared, not-finite, never-run,
        computed-weight, scale, not-recorded, other-model, other-rank, two-calibrations,
        same-data, example-only
    configs: unused-rule, kernel-spec, no-template, no-integers, no-observer, half-range
    specs: not-a-spec, spec-dtype, spec-observer, per-tensor, pair-bound, derived-axis,
        derived-circle, not-derivable, integer-rows, float64, share-conflict, shares-itself,
        nothing-to-share, no-edge, keyword-tensor, quantizers-differ
    pipelines: pipeline-text, pass-order, pass-place, pass-failed, pass-result, pass-name,
        not-a-pass, no-passes, no-recipe, no-statistics, not-a-graph, not-captured,
        invalid-graph, changed-function, node-place
    training: no-training, training-option, branch-training, not-trainable, trained-otherwise,
        lost-dropout, baked-mode, eval-only
    searches: no-goal, metric-fails, no-trial, other-trials
    results: nothing-to-quantize, nothing-to-lower, not-converted, no-kernel, no-kernels,
        no-float-model, no-variants, saturates, not-here, other-backend, fixed-dtype, fixed-device,
        autocast-dtype, not-picklable, no-state-dict, not-exportable, onnx-rejects,
        constant-results, written-buffer, aot-branch, aot-number, plain-inductor,
        no-direct-runtime, step-not-prepared, plan-failed, no-plan
    torch.compile: compiler-failed, recompile-limit, runs-in-python, stays-float, graph-break,
        no-transform, not-traced, not-an-operator, outside-dynamo, no-gradients, stale-weights,
        moved-weights, lost-weights, released-weights, not-all-int8
    bisection: nothing-wrong, fails-without, not-repeated
    tools and versions: torch-version, torch-internals, missing-package, missing-program,
        foreign-code, drawing-size, drawing-text, no-model, not-a-workload, not-built, no-int8,
        other-shapes, other-operators, process-ended, unreadable-line, zoo-entry
"""

from quantfx.passes.errors import (
    AnnotationError,
    ArgumentError,
    BisectError,
    CalibrationError,
    CaptureError,
    ComposeError,
    ConfigError,
    ContractError,
    FileError,
    InputError,
    ModeError,
    ObserverError,
    OptionError,
    PassError,
    PipelineError,
    QuantizationSpecError,
    ShareConflict,
    SpecError,
    StaleWeightsError,
)
from quantfx.patterns.errors import PatternError, QuantfxError, QuantfxWarning

__all__ = [
    "AnnotationError",
    "ArgumentError",
    "BisectError",
    "CalibrationError",
    "CaptureError",
    "ComposeError",
    "ConfigError",
    "ContractError",
    "FileError",
    "InputError",
    "ModeError",
    "ObserverError",
    "OptionError",
    "PassError",
    "PatternError",
    "PipelineError",
    "QuantfxError",
    "QuantfxWarning",
    "QuantizationSpecError",
    "ShareConflict",
    "SpecError",
    "StaleWeightsError",
]
