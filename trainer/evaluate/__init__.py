"""`python -m trainer.evaluate PATH...`: which runs overfit, since when, how sure; which knob drives it; what to use.

Imports what reads, judges, compares and reports; no torch.
"""

from trainer.evaluate.command import main
from trainer.evaluate.evaluation import evaluate

__all__ = ["evaluate", "main"]
