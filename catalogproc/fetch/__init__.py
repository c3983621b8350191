"""Data of a Gaia release, fetched from the archive into the input contract."""
