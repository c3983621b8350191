"""What the simulator learns from real spectra, and how it compares with them."""
