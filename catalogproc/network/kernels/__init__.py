"""The network's arithmetic, written out where that is faster."""
