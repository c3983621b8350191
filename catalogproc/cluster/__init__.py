"""Dask, and only here: plan, scheduler, worker plugin, GPUs."""
