"""Metrics, baselines, the information limit, coverage, and external validation."""
