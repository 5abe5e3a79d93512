"""Measure verdicts, statistics and findings against known truth; `python -m scripts.calibrate --help` lists all."""

from pathlib import Path

from trainer.compare.statistics import share_interval

ROOT = Path(__file__).parents[2]


def share(hits: int, of: int) -> str:
    """A share with its 95 % interval."""
    if of == 0:
        return "none"
    low, high = share_interval(hits, of)
    return f"{hits / of:.1%} ({hits} of {of:,}; {low:.1%} to {high:.1%})"
