"""Measure verdicts, statistics and findings against known truth: the tables in docs/.

    python -m scripts.calibrate                 # everything, about a quarter of an hour on two cores
    python -m scripts.calibrate synthetic real  # confusion matrices, false alarms, onsets, how sure
    python -m scripts.calibrate oracle          # the judge beside one who knows how histories are drawn, four minutes
    python -m scripts.calibrate stopping        # early stopping by the verdict and by the loss
    python -m scripts.calibrate null power tuned  # false claims where nothing differs; power; intervals after tuning
    python -m scripts.calibrate health          # planted training faults and healthy controls, about twenty minutes
    python -m scripts.calibrate cures           # what is suggested against planted faults, tried; about an hour

The real runs are trained by `python -m trainer` in --out; those that are there already are reused.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from scripts import prescriptions
from scripts.calibrate import ROOT, answers, findings, oracle, verdicts


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m scripts.calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", default=["synthetic", "oracle", "real", "stopping", "null", "power", "tuned"]
    )
    parser.add_argument("--histories", type=int, default=20000, help="synthetic histories (default %(default)s)")
    parser.add_argument("--sweeps", type=int, default=1000, help="simulated sweeps per cell (default %(default)s)")
    parser.add_argument("--architectures", type=int, default=120, help="stacks of planted faults (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the planted faults (default %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "calibration", help="where real runs are kept")
    parser.add_argument("--labelled", type=Path, help="histories that people labelled, JSON")
    parser.add_argument("--seeds", type=int, default=8, help="seeds of each real run (default %(default)s)")
    args = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "synthetic": lambda: verdicts.synthetic(args.histories),
        "real": lambda: verdicts.real(args.out, args.seeds),
        "oracle": lambda: oracle.compare(args.histories // 400, args.histories // 4),
        "labelled": lambda: verdicts.labelled(args.labelled),
        "stopping": lambda: verdicts.stopping(args.out, args.seeds),
        "null": lambda: answers.null(4 * args.sweeps),  # a share of 5 % is known to 0.3 % only then
        "power": lambda: answers.power(args.sweeps),
        "tuned": lambda: answers.tuned(args.sweeps),
        "health": lambda: findings.faults(args.architectures, args.seed),
        "cures": lambda: prescriptions.print_cures(prescriptions.patients(4 * args.architectures, args.seed)),
    }
    if unknown := set(args.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; choose from {', '.join(parts)}")
    for part in args.parts:
        parts[part]()


if __name__ == "__main__":
    main()
