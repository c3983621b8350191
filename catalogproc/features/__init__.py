"""Physical quantities of stars, and what the model reads of them."""
