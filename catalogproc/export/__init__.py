"""A finished catalog as files that other programs open; one module per format."""
