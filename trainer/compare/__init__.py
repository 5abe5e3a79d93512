"""Compares many runs: groups, effects, fairness, statistics. NumPy and SciPy only; may import judge."""
