"""Which tables CI runs a part of, and which tests it leaves to the sweep."""

from __future__ import annotations

import pytest

# Large tables of cells alike: CI runs every so many of each, the sweep the others.
SAMPLED = {
    "backends/direct/test_attention.py::test_masks": 4,
    "backends/direct/test_kernels.py::test_is_within_a_step": 3,
    "backends/direct/test_lowering_again.py::test_kernels_compute_what_the_qdq_graph_does": 4,
    "backends/direct/test_lowering_again.py::test_memory_holds_what_the_graph_had_there": 4,
    "backends/direct/test_lowering_again.py::test_views_work_in_every_layout_at_every_size": 3,
    "backends/direct/test_moves.py::test_it_is_inside_and_within_a_step": 3,
    "backends/direct/test_shapes.py::test_what_is_not_run_is_laid_out_as_if_it_were": 3,
    "backends/onednn/test_family.py::"
    "test_every_activation_is_fused_where_the_kernel_can_and_computed_everywhere": 3,
    "backends/onednn/test_family.py::test_weights_that_are_views_are_packed_in_order": 2,
    "backends/onednn/test_int8_layout.py::test_a_pool_of_any_plane_is_int8": 4,
    "backends/onednn/test_int8_layout.py::"
    "test_torch_needs_planes_in_order_from_128_positions_on": 8,
    "backends/onednn/test_int8pack.py::test_the_kernel_computes_what_the_qdq_graph_does": 4,
    "backends/quantized/test_ops.py::test_kernels_compute_what_the_qdq_graph_does": 6,
    "backends/quantized/test_rows_2_13.py::test_a_row_is_one_unit_that_reaches_its_kernel": 3,
    "backends/recurrent/test_layer.py::test_the_kernel_is_the_reference": 3,
    "backends/test_lowered_networks.py::test_an_encoder_in_every_mode": 2,
    "backends/test_lowered_ops.py::test_kernels_compute_what_the_qdq_graph_does": 6,
    "backends/test_native.py::test_tables_of_every_width": 4,
    "backends/test_native_fx_2_13.py::test_a_row_of_each_template_equals_fx_graph_mode": 4,
    "backends/test_other_rows.py::test_rows_of_another_number": 4,
    "backends/test_qat.py::test_what_is_trained_is_lowered": 3,
    "backends/test_xpu_freezing.py::test_every_planned_kernel_is_hit_on_xpu_as_on_cpu": 2,
    "backends/test_xpu_lowered.py::test_every_planned_site_is_a_kernel_call_on_fake_xpu_tensors": 3,
    "compat/prepare/test_prepare_qat.py::test_without_rounding_it_is_the_float_model": 3,
    "passes/capture/test_capture.py::test_captured_graphs_compute_the_same": 4,
    "passes/capture/test_few_rows.py::test_zero_is_right_or_refused": 3,
    "passes/capture/test_name_contractions.py::"
    "test_contractions_with_a_stored_tensor_are_linears": 3,
    "passes/capture/test_name_products.py::test_products_by_stored_matrices_are_linears": 3,
    "passes/export/test_align_modes.py::test_both_modes_are_the_models_own": 3,
    "passes/export/test_align_modes.py::"
    "test_prepared_without_rounding_they_still_are_and_convert": 3,
    "passes/export/test_concrete_sizes.py::test_the_graph_is_that_of_an_export_for_the_example": 3,
    "passes/fold/test_fold_batch_norm.py::test_folding_keeps_the_function": 2,
    "passes/graph/test_non_data_transformers.py::test_every_observed_tensor_follows_the_weights": 3,
    "passes/lower/test_restore_layouts.py::test_memory_holds_what_the_graph_had_there": 3,
    "passes/lower/test_restore_layouts.py::test_views_work_in_every_layout_at_every_size": 3,
    "passes/observe/equalize/test_equalize_layers.py::test_the_function_stays": 3,
    "passes/observers/statistics/test_sample.py::test_as_many_as_there_is_room_for": 3,
    "passes/observers/test_histogram.py::test_equals_torch_ao": 3,
    "passes/observers/test_mse.py::test_error_is_not_above_the_other_observers": 3,
    "passes/observers/test_scale_search.py::test_no_worse_than_a_grid_of_a_hundred": 3,
    "passes/pipeline/test_permits.py::test_a_pass_that_is_optional_can_be_left_out": 3,
    "passes/report/test_accounts.py::test_every_call_stands_in_one_list": 6,
    "passes/train/test_adopt_fake_quantize_2_13.py::"
    "test_the_scale_of_training_is_the_scale_of_the_weight": 3,
    "passes/train/test_place_dropout.py::test_the_converted_graph_is_that_of_calibration": 3,
    "passes/train/test_qat_conv_bn.py::test_conversion_is_the_evaluation_of_what_was_trained": 3,
    "passes/train/test_qat_conv_bn.py::test_gradients_without_rounding_are_the_float_models": 3,
    "passes/train/test_qat_conv_bn.py::test_the_converted_graph_is_that_of_calibration": 3,
    "passes/train/test_qat_conv_bn.py::test_without_rounding_it_is_the_float_model": 3,
    "patterns/test_matcher.py::test_exported_cases": 3,
    "test_odd_shapes.py::test_odd_shapes_are_right_or_refused": 6,
    "test_save.py::test_what_is_loaded_is_what_was_saved": 3,
    "test_specialized_calls.py::test_every_compiled_way_is_right_or_refuses": 3,
    "test_specialized_calls.py::test_every_way_to_call_is_right_or_refuses": 6,
    "tools/doctor/test_native_examples.py::test_it_reaches_what_the_template_promises": 3,
    "tools/doctor/test_template_examples.py::test_a_template_of_xpu_is_lowered_to_its_kernel": 3,
    "tools/doctor/test_template_examples.py::"
    "test_a_template_reaches_its_kernel_with_every_activation": 3,
    "tools/fuzz/test_fuzz.py::test_every_rule_of_a_template_can_be_broken": 3,
}

# Second proofs that take seconds, and what of CI has the first. A name without brackets is all cells.
SWEPT = {
    "backends/inductor/test_bisect_names.py::test_a_bisection_of_ours_leaves_out_a_sum": (
        "test_bisect_model.py names sites; the names of Inductor's own passes are what is left out"
    ),
    "backends/inductor/test_compile.py::test_every_mode_reaches_its_kernel[dynamic]": (
        "test_a_dynamic_range_holds_zero_when_compiled_too"
    ),
    "backends/inductor/test_compiled_2_13.py::test_a_generated_cpp_wrapper_computes_the_same": (
        "test_ahead_of_time.py compiles such code, and test_static_graph.py the wrapper of Python"
    ),
    "backends/inductor/test_fuse_sums.py::"
    "test_a_linear_leaves_its_summand_alone_so_it_may_be_read_later": (
        "test_nothing_that_is_read_later_is_overwritten[one sum after another]"
    ),
    "backends/onednn/test_family.py::test_a_linear_with_relu_and_a_sum_behind_it": (
        "test_every_activation_is_fused_where_the_kernel_can_and_computed_everywhere"
    ),
    "backends/onednn/test_int8pack.py::test_no_free_size_is_read[2]": (
        "inductor/test_declare_layouts.py compiles for sizes that were not captured"
    ),
    "backends/recurrent/test_family.py::test_it_compiles_beside_other_layers": (
        "test_other_batches_and_lengths"
    ),
    "backends/test_native_networks_2_13.py::test_packed_weights_are_copied[resnet]": "its other cells",
    "backends/test_small_scales.py::test_small_inputs_compiled": (
        "test_a_dynamic_range_follows_each_call, and small inputs in torch's kernels"
    ),
    "backends/direct/test_lowering_again.py::test_compiled_memory_holds_it_too[windows]": (
        "the other cell, and test_views_work_in_every_layout_at_every_size"
    ),
    "compat/prepare/test_prepare_qat.py::test_equal_to_torchao_where_that_keeps_eps[conv2d]": (
        "test_torchao_reference.py, and passes/train/test_qat_conv_bn.py for the function"
    ),
    "dynamo/test_lower.py::test_a_graph_of_another_quantizer": (
        "backends/weight_only/test_family.py::test_a_graph_of_another_quantizer_is_lowered"
    ),
    "passes/capture/test_dict_order.py::test_keys_in_any_order_are_right[<lambda>1]": "its other cell",
    "passes/export/test_export_reason.py::"
    "test_torchs_transformers_are_told_which_flag_decides[True]": "its other cell",
    "passes/inputs/test_batch_check.py::test_a_decoder_of_torchs_takes_its_causal_mask": (
        "test_decoder.py, whose masks are causal"
    ),
    "passes/inputs/test_fits_traced.py::test_guards_decide[range-None]": "its other cells",
    "passes/inputs/test_fits_traced.py::test_guards_decide[two sizes-True]": "its other cells",
    "test_bisect_model.py::test_two_culprits_are_both_named": (
        "test_what_does_harm_only_together_is_named_together"
    ),
    "test_bisect_model.py::test_what_an_exception_kept_from_being_asked_is_searched_as_well": (
        "test_what_a_pass_raises_counts_and_is_kept"
    ),
    "test_data_sizes.py::test_a_loaded_result_compiled_for_all_rows[Counted]": (
        "test_more_rows_than_the_example_has, and test_save.py compiles a loaded result"
    ),
    "test_decoder.py::test_every_product_is_quantized[weight-only]": "its other cell",
    "test_onnx_2_13.py::test_a_convolution_net_of_any_batch": "test_ranges_of_any_length_and_batch",
    "test_qat.py::test_from_the_model_to_int8_kernels[resnet-True]": "its other cells",
    "test_qat.py::test_from_the_model_to_int8_kernels[transformer-False]": "its other cells",
    "test_search_recipe.py::test_the_digits_are_as_right_as_is_asked_with_every_site_int8": (
        "test_the_goal_is_met_at_less_cost_than_float, and test_accuracy.py has the digits"
    ),
    "test_search_recipe.py::"
    "test_the_estimate_ends_with_half_of_the_time_or_when_more_rows_hardly_tell[3000.0-2]": (
        "its other cells"
    ),
    "tools/demo/test_low_bits.py::test_training_recovers_what_calibration_loses_at_two_bits": (
        "test_accuracy.py::test_weights_of_two_bits_are_worth_something_once_repaired"
    ),
    "tools/doctor/test_run_2_13.py::test_a_sum_that_compiling_takes_in": (
        "backends/inductor/test_fuse_sums.py"
    ),
    "tools/fuzz/test_fuzz.py::test_random_models_hold[14]": "its other seeds",
}


def mark_swept(items: list[pytest.Item]) -> None:
    """Mark what ``SWEPT`` names."""
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if name in SWEPT or name.partition("[")[0] in SWEPT:
            item.add_marker(pytest.mark.sweep)


def mark_sampled(items: list[pytest.Item]) -> None:
    """Mark all but each n-th cell of a table; the one that stays is not the first of its kind."""
    cells: dict[str, list[pytest.Item]] = {}
    for item in items:
        name = item.nodeid.partition("[")[0].removeprefix("tests/")
        if name in SAMPLED:
            cells.setdefault(name, []).append(item)
    for name, table in cells.items():
        every = SAMPLED[name]
        for place, item in enumerate(table):
            if place % every != every // 2:
                item.add_marker(pytest.mark.sweep)
