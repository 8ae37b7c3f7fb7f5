"""What calibration data holds, as values: by tensor and by layer, merged, and in files."""
