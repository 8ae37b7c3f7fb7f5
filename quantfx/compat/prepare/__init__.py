"""prepare_pt2e and prepare_qat_pt2e."""
