"""A catalog against what must be true of stars without any model."""
