"""Findings on planted training faults and on healthy controls."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from scripts import plants
from scripts.calibrate import share
from trainer.judge.health import judge as judge_health


def faults(architectures: int, seed: int) -> None:
    """Train planted faults and healthy controls, and compare what health.judge finds."""
    cases = []
    for number in range(architectures):
        cases += plants.cases(np.random.default_rng([seed, number]))
    print_findings(cases)


def _is_known(case: plants.Case) -> bool:
    """Whether a run counts: a control that learned, or had no time to; a fault, some only if little was learned."""
    if not case.fault:
        return case.short or case.learned
    return not (plants.BY_NAME[case.fault].by_outcome and case.learned)


def print_findings(cases: Sequence[plants.Case]) -> None:
    """Recall by fault and finding, precision by finding, false alarms on controls."""
    trained, cases = len(cases), [case for case in cases if _is_known(case)]
    found = [{one.finding for one in judge_health(c.rows, c.start, c.config, c.not_finite)} for c in cases]
    known = [plants.BY_NAME.get(case.fault) for case in cases]
    ill = [(fault, names) for fault, names in zip(known, found, strict=True) if fault]
    controls = [(case, names) for case, names in zip(cases, found, strict=True) if not case.fault]
    print(
        f"\n## Training faults ({len(ill)} runs of {len({f.name for f, _ in ill})} kinds, {len(controls)} controls)\n"
    )
    print("| planted | looked for | runs | found |\n| --- | --- | --- | --- |")
    for fault in plants.FAULTS:
        hits = [bool(fault.expected & names) for one, names in ill if one is fault]
        if hits:
            looked_for = " or ".join(sorted(fault.expected))
            print(f"| {fault.name} | {looked_for} | {len(hits)} | {share(sum(hits), len(hits))} |")
    print("\n| finding | found | of these planted (precision) | planted | found (recall) |\n|" + " --- |" * 5)
    alarms = Counter(name for _, names in controls for name in names)
    for name in sorted({name for fault, names in ill for name in fault.expected | names} | set(alarms)):
        right = sum(name in names for fault, names in ill if name in fault.expected | fault.also)
        said = alarms[name] + sum(name in names for _, names in ill)
        hits = [bool(fault.expected & names) for fault, names in ill if name in fault.expected]
        print(f"| {name} | {said} | {share(right, said)} | {len(hits)} | {share(sum(hits), len(hits))} |")
    right = sum(len(names & (fault.expected | fault.also)) for fault, names in ill)
    said = sum(alarms.values()) + sum(len(names) for _, names in ill)
    hits = sum(bool(fault.expected & names) for fault, names in ill)
    print(f"\nAll: precision {right / said:.3f} of {said} findings, recall {hits / len(ill):.3f} of {len(ill)} faults.")
    print(f"Controls with a finding: {share(sum(bool(names) for _, names in controls), len(controls))}; ", end="")
    print(f"{trained - len(cases)} runs whose truth is not known are left out.")
    for case, names in zip(cases, found, strict=True):
        fault = plants.BY_NAME.get(case.fault)
        wrong = names - (fault.expected | fault.also) if fault else names
        if wrong or (fault and not fault.expected & names):
            print(f"  {case.fault or 'control'}: {', '.join(sorted(names)) or 'nothing'} ({case.made})")
