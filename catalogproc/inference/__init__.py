"""One chunk of stars: screening, prediction, quality flags, catalog columns."""
