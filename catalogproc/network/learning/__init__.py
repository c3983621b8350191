"""How a network is trained, and the trees that stand beside it."""
