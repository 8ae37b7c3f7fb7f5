"""Which tables CI runs a part of, and which tests it leaves to the sweep."""

from __future__ import annotations

import pytest

# Large tables of cells alike: CI runs every so many of each, the sweep the others.
SAMPLED = {
    "backends/direct/rules/test_moves.py::test_it_is_inside_and_within_a_step": 3,
    "backends/direct/rules/test_shapes.py::test_what_is_not_run_is_laid_out_as_if_it_were": 3,
    "backends/direct/test_attention.py::test_masks": 4,
    "backends/direct/test_kernels.py::test_is_within_a_step": 3,
    "backends/direct/test_lowering_again.py::test_kernels_compute_what_the_qdq_graph_does": 4,
    "backends/direct/test_lowering_again.py::test_memory_holds_what_the_graph_had_there": 4,
    "backends/direct/test_lowering_again.py::test_views_work_in_every_layout_at_every_size": 3,
    "backends/direct/test_random_graphs.py::test_each_step_is_within_one_of_the_graph": 2,
    "backends/onednn/test_family.py::"
    "test_every_activation_is_fused_where_the_kernel_can_and_computed_everywhere": 3,
    "backends/onednn/test_family.py::test_weights_that_are_views_are_packed_in_order": 2,
    "backends/onednn/test_int8_layout.py::test_a_pool_of_any_plane_is_int8": 4,
    "backends/onednn/test_int8_layout.py::"
    "test_torch_needs_planes_in_order_from_128_positions_on": 8,
    "backends/onednn/test_int8pack.py::test_the_kernel_computes_what_the_qdq_graph_does": 4,
    "backends/quantized/test_ops.py::test_kernels_compute_what_the_qdq_graph_does": 6,
    "backends/quantized/test_rows_2_13.py::test_a_row_is_one_unit_that_reaches_its_kernel": 3,
    "backends/recurrent/test_family.py::test_cells": 2,
    "backends/recurrent/test_family.py::test_layers": 2,
    "backends/recurrent/test_layer.py::test_the_kernel_is_the_reference": 3,
    "backends/test_lowered_networks.py::test_an_encoder_in_every_mode": 2,
    "backends/test_lowered_ops.py::test_kernels_compute_what_the_qdq_graph_does": 6,
    "backends/test_native.py::test_tables_of_every_width": 4,
    "backends/test_native_fx_2_13.py::test_a_row_of_each_template_equals_fx_graph_mode": 4,
    "backends/test_other_rows.py::test_rows_of_another_number": 4,
    "backends/test_parity.py::test_edges_and_counts": 4,
    "backends/test_qat.py::test_what_is_trained_is_lowered": 3,
    "backends/test_small_scales.py::test_small_inputs_on_native": 2,
    "backends/test_xpu_freezing.py::test_every_planned_kernel_is_hit_on_xpu_as_on_cpu": 2,
    "backends/test_xpu_lowered.py::test_every_planned_site_is_a_kernel_call_on_fake_xpu_tensors": 3,
    "compat/prepare/test_prepare_qat.py::test_without_rounding_it_is_the_float_model": 3,
    "passes/annotate/test_expand_attention.py::test_it_keeps_the_float_function": 2,
    "passes/capture/test_capture.py::test_captured_graphs_compute_the_same": 4,
    "passes/capture/test_few_rows.py::test_zero_is_right_or_refused": 3,
    "passes/capture/test_name_contractions.py::"
    "test_contractions_with_a_stored_tensor_are_linears": 3,
    "passes/capture/test_name_products.py::test_products_by_stored_matrices_are_linears": 3,
    "passes/capture/test_name_products.py::test_products_of_what_is_computed_are_matmuls": 2,
    "passes/draw/test_dot.py::test_equal_graphs_give_equal_bytes": 3,
    "passes/draw/test_dot.py::test_every_added_node_shows": 3,
    "passes/draw/test_dot.py::test_every_dropped_edge_shows": 3,
    "passes/export/test_align_modes.py::test_both_modes_are_the_models_own": 3,
    "passes/export/test_align_modes.py::"
    "test_prepared_without_rounding_they_still_are_and_convert": 3,
    "passes/export/test_concrete_sizes.py::test_the_graph_is_that_of_an_export_for_the_example": 3,
    "passes/export/test_training_graph.py::test_both_modes_are_the_models_own": 3,
    "passes/export/test_watch_layout.py::test_layouts_that_the_model_reads_are_the_examples": 2,
    "passes/fold/test_fold_batch_norm.py::test_folding_keeps_the_function": 2,
    "passes/fold/test_fold_constants.py::test_their_layers_are_quantized": 3,
    "passes/graph/test_non_data_transformers.py::test_every_observed_tensor_follows_the_weights": 3,
    "passes/graph/test_non_data_transformers.py::test_the_report_says_why": 2,
    "passes/inputs/test_batch_check.py::test_arguments_that_do_not_fit_are_named": 2,
    "passes/inputs/test_call_arguments.py::test_examples_and_batches_by_name": 2,
    "passes/lower/test_hoist_quantize.py::"
    "test_a_quantize_moves_up_to_the_kernel_and_nothing_changes": 2,
    "passes/lower/test_restore_layouts.py::test_memory_holds_what_the_graph_had_there": 3,
    "passes/lower/test_restore_layouts.py::test_views_work_in_every_layout_at_every_size": 3,
    "passes/lower/test_size_free_views.py::test_the_same_values_of_any_size": 2,
    "passes/model/test_require_float.py::test_a_model_trained_by_eager_mode_is_quantized": 2,
    "passes/observe/equalize/test_equalize_layers.py::test_the_function_stays": 3,
    "passes/observers/statistics/test_sample.py::test_as_many_as_there_is_room_for": 3,
    "passes/observers/test_histogram.py::test_equals_torch_ao": 3,
    "passes/observers/test_mse.py::test_error_is_not_above_the_other_observers": 3,
    "passes/observers/test_scale_search.py::test_no_worse_than_a_grid_of_a_hundred": 3,
    "passes/pipeline/test_permits.py::test_a_pass_that_is_optional_can_be_left_out": 3,
    "passes/report/test_accounts.py::test_calls_that_are_not_of_torch_and_control_flow": 3,
    "passes/report/test_accounts.py::test_every_call_stands_in_one_list": 6,
    "passes/report/test_macs.py::test_recurrent_layers_count_as_torch_unrolls_them": 2,
    "passes/train/test_adopt_fake_quantize_2_13.py::"
    "test_the_scale_of_training_is_the_scale_of_the_weight": 3,
    "passes/train/test_place_dropout.py::test_the_converted_graph_is_that_of_calibration": 3,
    "passes/train/test_place_dropout.py::test_without_rounding_the_masks_are_the_models": 3,
    "passes/train/test_qat_conv_bn.py::test_conversion_is_the_evaluation_of_what_was_trained": 3,
    "passes/train/test_qat_conv_bn.py::test_gradients_without_rounding_are_the_float_models": 3,
    "passes/train/test_qat_conv_bn.py::test_the_converted_graph_is_that_of_calibration": 3,
    "passes/train/test_qat_conv_bn.py::test_without_rounding_it_is_the_float_model": 3,
    "passes/train/test_qat_module.py::test_loss_curves_without_rounding_are_the_float_models": 4,
    "patterns/test_matcher.py::test_exported_cases": 3,
    "test_data_sizes.py::test_every_linear_is_planned_and_lowered": 2,
    "test_odd_shapes.py::test_odd_shapes_are_right_or_refused": 6,
    "test_other_sizes.py::test_random_graphs_that_know_sizes": 3,
    "test_save.py::test_what_is_loaded_is_what_was_saved": 3,
    "test_specialized_calls.py::test_every_compiled_way_is_right_or_refuses": 3,
    "test_specialized_calls.py::test_every_way_to_call_is_right_or_refuses": 6,
    "test_torchao_reference.py::test_counts": 3,
    "tools/doctor/test_native_examples.py::test_it_reaches_what_the_template_promises": 3,
    "tools/doctor/test_template_examples.py::test_a_template_of_xpu_is_lowered_to_its_kernel": 3,
    "tools/doctor/test_template_examples.py::"
    "test_a_template_reaches_its_kernel_with_every_activation": 3,
    "tools/doctor/test_template_examples.py::test_an_example_has_one_match_of_its_template": 3,
    "tools/fuzz/test_fuzz.py::test_every_rule_of_a_template_can_be_broken": 3,
    "tools/fuzz/test_fuzz.py::test_torch_compile_is_asked_for_the_variant": 2,
}

# Second proofs that take seconds, and what of CI has the first. A name without brackets is all cells.
SWEPT = {
    "accuracy/test_digests.py::test_equal_metrics_are_equal_in_every_process": (
        "test_search_recipe.py goes on from files, with the digests of one process"
    ),
    "backends/direct/test_lowering_again.py::test_compiled_memory_holds_it_too": (
        "passes/lower/test_restore_layouts.py::test_compiled_memory_holds_it_too[windows]"
    ),
    "backends/inductor/test_bisect_names.py::test_a_bisection_of_ours_leaves_out_a_sum": (
        "test_bisect_model.py names sites; the names of Inductor's own passes are what is left out"
    ),
    "backends/inductor/test_compile.py::test_every_mode_reaches_its_kernel[dynamic]": (
        "test_a_dynamic_range_holds_zero_when_compiled_too"
    ),
    "backends/inductor/test_compiled_2_13.py::test_a_generated_cpp_wrapper_computes_the_same": (
        "test_ahead_of_time.py compiles such code, and test_static_graph.py the wrapper of Python"
    ),
    "backends/inductor/test_compiled_2_13.py::test_new_shapes_compile_and_calls_cost_no_settings": (
        "test_static_graph.py::test_the_captured_form_needs_no_dynamo_and_others_do"
    ),
    "backends/inductor/test_compiled_2_13.py::test_quantizing_and_running_in_inference_mode": (
        "test_static_graph.py::test_the_captured_form_needs_no_dynamo_and_others_do"
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
    "backends/test_native.py::"
    "test_torch_says_once_that_quantized_tensors_go_away_and_not_to_our_users": (
        "pyproject.toml makes such a warning an error wherever it is ours"
    ),
    "backends/test_native_networks_2_13.py::test_packed_weights_are_copied[resnet]": (
        "its other cells"
    ),
    "backends/test_small_scales.py::test_small_inputs_compiled": (
        "test_a_dynamic_range_follows_each_call, and small inputs in torch's kernels"
    ),
    "backends/weight_only/test_family.py::test_compiled_for_free_sizes": (
        "passes/inputs/test_caches.py compiles for a free size, and test_decoder.py these kernels"
    ),
    "cli/test_program.py::test_the_program_is_started_by_its_name_and_a_shell_completes_commands": (
        "test_help_imports_neither_inductor_nor_dynamo starts it as well"
    ),
    "compat/prepare/test_prepare_qat.py::test_equal_to_torchao_where_that_keeps_eps[conv2d]": (
        "test_torchao_reference.py, and passes/train/test_qat_conv_bn.py for the function"
    ),
    "decoding/test_quantize_cache.py::test_a_file_is_read_where_no_decoder_was_made": (
        "test_files_keep_the_cache, and test_save.py in a process of its own"
    ),
    "docs/test_examples.py::test_example_runs[encoder.py]": (
        "docs/guides/attention.md, whose encoder is smaller"
    ),
    "docs/test_pages.py::test_fast_blocks_run[docs/accuracy.md]": "test_accuracy.py",
    "docs/test_pages.py::test_fast_blocks_run[docs/guides/decoders.md]": "test_decoder.py",
    "docs/test_pages.py::test_fast_blocks_run[docs/guides/explain.md]": "passes/report/explain",
    "docs/test_pages.py::test_fast_blocks_run[docs/guides/repair.md]": "passes/convert/repair",
    "dynamo/test_auto.py::test_batches_of_one_to_twenty": (
        "test_explicit.py::test_other_sizes_with_free_dimensions"
    ),
    "dynamo/test_auto.py::test_weights_that_some_graph_reads_in_float_are_kept": (
        "test_released_weights"
    ),
    "dynamo/test_flatten_vmap.py::test_a_model_that_maps_quantizes_itself": (
        "the other tests of that file, of graphs"
    ),
    "dynamo/test_lower.py::test_a_graph_of_another_quantizer": (
        "backends/weight_only/test_family.py::test_a_graph_of_another_quantizer_is_lowered"
    ),
    "dynamo/test_lower.py::test_nothing_else_is_warned_about": (
        "test_plain_inductor_is_warned_about_by_name"
    ),
    "dynamo/test_online.py::test_twelve_equal_layers_compiled_one_by_one_are_all_int8": (
        "test_recompile_limit.py::test_a_backend_says_it_once_and_other_instances_stay_int8"
    ),
    "dynamo/test_parity.py::test_small_networks[mlp]": (
        "test_lower.py::test_it_is_bit_equal_to_our_own_compiler"
    ),
    "dynamo/test_recompile_limit.py::test_a_part_behind_a_graph_break": (
        "test_auto_says_it_when_it_happens_and_in_state_and_report"
    ),
    "dynamo/test_recompile_limit.py::test_convert_and_reset_start_anew_and_are_told_of_anew": (
        "test_auto_says_it_when_it_happens_and_in_state_and_report"
    ),
    "dynamo/test_recompile_limit.py::test_no_model_is_kept_alive_by_what_was_told": (
        "test_online.py::test_compiled_code_keeps_no_model_alive"
    ),
    "dynamo/test_recompile_limit.py::"
    "test_where_errors_are_asked_for_it_is_an_error_of_ours[True]": ("its other cell"),
    "passes/capture/test_compare_capture.py::"
    "test_usual_networks_are_prepared_for_training_without_a_word": (
        "test_qat.py trains such networks"
    ),
    "passes/capture/test_dict_order.py::test_keys_in_any_order_are_right[<lambda>1]": (
        "its other cell"
    ),
    "passes/convert/test_share_tied_tables.py::test_it_compiles": (
        "backends/lookup/test_family.py::test_it_compiles_to_a_loop"
    ),
    "passes/draw/test_dot.py::test_text_does_not_depend_on_the_hash_seed": (
        "every snapshot is compared in a process whose seed is random"
    ),
    "passes/export/test_export_reason.py::test_torchs_transformers_are_told_which_flag_decides": (
        "passes/capture/test_compare_capture.py::test_a_fast_path_that_export_does_not_take_is_told"
    ),
    "passes/inputs/test_batch_check.py::test_a_decoder_of_torchs_takes_its_causal_mask": (
        "test_decoder.py, whose masks are causal"
    ),
    "passes/inputs/test_fits_traced.py::test_guards_decide[range-None]": "its other cells",
    "passes/inputs/test_fits_traced.py::test_guards_decide[two sizes-True]": "its other cells",
    "passes/lower/test_keep_packed.py::test_a_compiler_sees_the_operators": (
        "backends/inductor/test_compile.py counts the kernels of compiled code"
    ),
    "passes/lower/test_restore_layouts.py::"
    "test_compiled_memory_holds_it_too[written through a reshape]": ("its other cell"),
    "test_bisect_model.py::test_tensors_that_share_an_observer_by_mistake_are_named": (
        "test_what_does_harm_only_together_is_named_together, and bisection/test_search.py"
    ),
    "test_bisect_model.py::test_two_culprits_are_both_named": (
        "test_what_does_harm_only_together_is_named_together"
    ),
    "test_bisect_model.py::test_what_an_exception_kept_from_being_asked_is_searched_as_well": (
        "test_what_a_pass_raises_counts_and_is_kept"
    ),
    "test_collect_statistics.py::test_batches_come_as_for_calibrate": (
        "passes/observe/test_calibrate.py"
    ),
    "test_data_sizes.py::test_a_loaded_result_compiled_for_all_rows[Counted]": (
        "test_more_rows_than_the_example_has, and test_save.py compiles a loaded result"
    ),
    "test_decoder.py::test_every_product_is_quantized[weight-only]": "its other cell",
    "test_equalize_model.py::test_batches_come_as_for_calibrate": (
        "passes/observe/test_calibrate.py"
    ),
    "test_migration_page.py::test_every_block_runs": "tests/compat",
    "test_onnx_2_13.py::test_ranges_of_any_length_and_batch": (
        "test_a_convolution_net_of_any_batch, and decoding/test_growth.py for lengths"
    ),
    "test_qat.py::test_a_trained_network_compiles[small]": (
        "test_from_the_model_to_int8_kernels; what is compiled is a result as any"
    ),
    "test_qat.py::test_from_the_model_to_int8_kernels[resnet-True]": "its other cells",
    "test_qat.py::test_from_the_model_to_int8_kernels[transformer-False]": "its other cells",
    "test_qat.py::test_networks_train_as_they_are_and_are_lowered_as_after_calibration[bert]": (
        "its other cells"
    ),
    "test_search_recipe.py::test_each_item_is_made_a_batch_once[True]": "its other cell",
    "test_search_recipe.py::test_processes_share_the_trials_and_find_the_same": (
        "test_collect_statistics.py has two processes"
    ),
    "test_search_recipe.py::test_the_digits_are_as_right_as_is_asked_with_every_site_int8": (
        "test_the_goal_is_met_at_less_cost_than_float, and test_accuracy.py has the digits"
    ),
    "test_search_recipe.py::"
    "test_the_estimate_ends_with_half_of_the_time_or_when_more_rows_hardly_tell[3000.0-2]": (
        "its other cells"
    ),
    "tools/bench/test_decoding.py::test_rows_take_turns_and_are_compared": (
        "test_session.py takes turns, and test_decoder.py has the decoders"
    ),
    "tools/bench/test_process.py::test_a_process_that_dies_is_an_error_with_its_last_words": (
        "benchmarks are outside of CI; test_session.py has one process"
    ),
    "tools/bench/test_run.py::test_tables_and_files_are_written": "test_session.py",
    "tools/demo/test_low_bits.py::test_training_recovers_what_calibration_loses_at_two_bits": (
        "test_accuracy.py::test_weights_of_two_bits_are_worth_something_once_repaired"
    ),
    "tools/doctor/test_kernels.py::test_a_target_that_promises_more_than_the_cpu_does_is_seen": (
        "backends/test_x86.py has such a process"
    ),
    "tools/doctor/test_run_2_13.py::test_a_sum_that_compiling_takes_in": (
        "backends/inductor/test_fuse_sums.py"
    ),
    "tools/fuzz/test_fuzz.py::test_random_models_hold[14]": "its other seeds",
    "tools/fuzz/test_fuzz.py::test_random_models_with_tables_and_recurrent_layers_hold": (
        "test_random_models_hold, and the tests of both families"
    ),
    "tools/html/test_view.py::test_a_click_on_every_branch_and_region_opens_it[onednn]": (
        "its other cell"
    ),
    "tools/html/test_view.py::test_a_phone_reads_it_without_sideways_scrolling": (
        "test_a_click_on_every_branch_and_region_opens_it"
    ),
    "tools/zoo/test_measure.py::test_a_refusal_ends_what_needs_the_result_and_not_auto": (
        "the zoo is outside of CI"
    ),
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
