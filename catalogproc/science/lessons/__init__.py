"""From stars to a bundle: what a training learns from, and what it ends with."""
