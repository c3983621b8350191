"""Labelled stars as training sets and test sets."""
