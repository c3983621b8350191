"""What the model has learned, told as spectra: made, completed, and as vectors."""
