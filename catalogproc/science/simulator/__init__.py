"""Giants with known truth, as Gaia and 2MASS would report them."""
