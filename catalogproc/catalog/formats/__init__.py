"""The files that a catalog is written to for other programs: a module a format."""
