"""Find what is wrong with a data set, from what core/data/inspection.py counted. Pure; no torch.

Only what makes a run's numbers mean something else is a finding. Equal examples and constant features are common and
harmless: they stand in summary.json alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.judge.health import Finding

LEAKED = 0.02, 5  # of a split's examples, and so many of them, are equal to others
AGREE = 0.75  # of equal examples have equal targets: else they are no copies, and do not make numbers better
FEW_VALUES = 4  # examples that are equal, on average: such inputs have few values, and that they meet is no leak
FLOOR = 0.05  # of the chance-level loss cannot be learned, as equal inputs have different targets


def judge(facts: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with a data set."""
    if facts["constant_features"] == facts["features"]:  # which health.py says: all examples are equal
        return []
    return [*_leakage(facts), *_contradictions(facts)]


def _leakage(facts: Mapping[str, Any]) -> list[Finding]:
    examples, test, (share, few) = facts["examples"], facts["test_examples"], LEAKED
    copies, leaked = facts["duplicates"], facts["test_among_train"]
    contradict = facts["contradicting"] > 2 * (1 - AGREE) * copies  # a copy and what it is of are two
    if examples > FEW_VALUES * (examples - copies) or contradict or facts["with_its_target"] < AGREE * leaked:
        return []
    evidence = {key: facts[key] for key in ("duplicates", "test_among_train", "with_its_target")}
    places, said = [], []
    if leaked >= few and leaked > share * test:
        places.append("test split")
        said.append(f"{leaked} of {test} test examples are equal to examples that train or validate")
    if copies >= few and copies > share * examples:
        places.append("validation split")
        said.append(f"{copies} of {examples} other examples are copies, so what validates is trained on")
    return [Finding("leakage", ", ".join(places), 0, "; ".join(said), evidence)] if said else []


def _contradictions(facts: Mapping[str, Any]) -> list[Finding]:
    floor, chance = facts["floor"], facts["chance"]
    if not facts["contradicting"] or floor <= FLOOR * chance:
        return []
    said = (
        f"{facts['contradicting']} of {facts['examples']} examples have an equal one with another target: the best "
        f"prediction from the inputs costs {floor:.3g} (guessing {chance:.3g})"
    )
    evidence = {"contradicting": facts["contradicting"], "floor": floor, "guessing": chance}
    return [Finding("contradicting_targets", "targets", 0, said, evidence)]
