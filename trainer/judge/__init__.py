"""Verdicts on one run from its curves: overfitting and health. NumPy only; may import nothing of ours."""
