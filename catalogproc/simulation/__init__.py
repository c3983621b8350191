"""Simulated giants with known truth, and the grids that the simulator needs."""
