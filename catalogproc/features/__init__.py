"""Physical quantities of stars, and the tokens that the model reads."""
