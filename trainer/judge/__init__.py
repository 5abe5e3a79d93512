"""Judges one run from its curves and records: overfitting and health. NumPy only; may import nothing of ours."""
