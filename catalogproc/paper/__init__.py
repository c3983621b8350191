"""The experiments of Zhang, Bu et al. (2026, arXiv:2603.03732), figure by figure."""
