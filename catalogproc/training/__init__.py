"""Token sampling, trainer, calibration, model card: from stars to a bundle."""
