"""Run the command that scripts/hostile/__init__.py describes."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts import hostile
from scripts.hostile.mutations import try_mutations
from scripts.hostile.trials import remove, try_kinds


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 1 where something does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.hostile", description=(hostile.__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--mutations", type=int, metavar="N", help="change files at random, N times, instead")
    parser.add_argument("--only", default="", metavar="WORD", help="only kinds with this in their name")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes (0)")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    failures = (
        try_mutations(options.mutations, options.seed, folder) if options.mutations else try_kinds(folder, options.only)
    )
    if not failures:
        remove(folder)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
