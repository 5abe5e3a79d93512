"""A configurable training-experiment runner: see README.md."""
