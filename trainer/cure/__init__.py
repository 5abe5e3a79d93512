"""Suggested cures of a sick run, tried beside it: what is trained, and what it shows."""
