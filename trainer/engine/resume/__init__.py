"""Continuing in a directory that holds runs: the plan and the checkpoints. Imports as engine does."""
