"""Finished catalogs: opened in Python, and written in the formats of other programs."""
