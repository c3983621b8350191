"""The seed paper's experiments (Zhang, Bu et al. 2026, figures 4 to 19), for any model."""
