"""What the model says of spectra: made from labels, completed, and turned into vectors."""
