"""The best possible answer, by an independent route."""
