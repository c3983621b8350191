"""Real stars with spectra and labels, cut, split and written to train on."""
