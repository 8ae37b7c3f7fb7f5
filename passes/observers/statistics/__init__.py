"""Statistics of calibration data as values: by tensor and by layer, merged, and in files."""
