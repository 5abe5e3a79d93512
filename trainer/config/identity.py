"""Which keys of a configuration make two runs the same run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_RESULT = {"data.root", "checkpoint.minutes", "checkpoint.epochs"}  # keys that change nothing of what a run leaves
LATER = [("step", "auto"), ("record.keep", "all")]  # not in what older directories hold; whatever else they say counts
CHECKS = ("check.one_batch", "check.gradients")


def result_keys(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flat configuration, or what is known of one, without what changes no result."""
    kept = {key: value for key, value in flat.items() if key not in NO_RESULT and (key, value) not in LATER}
    if "model._target_" not in kept:  # a check that is left open is one for a module of the user's own alone
        kept |= {key: bool(kept[key]) for key in CHECKS if key in kept}
    return kept
