"""What could be seen by one who knows how the histories are drawn, beside what the judge sees.

The oracle is told the noise (its level, shape and share in the training loss), scale and constant, and sees the losses
before they are recorded. It knows each label's clean histories by thousands of draws, and calls the label whose mean
likelihood times its share of all is largest (Bayes' rule): no judge does better, up to what the draws leave out.
"""

from collections import Counter

import numpy as np

from scripts.calibrate import share
from scripts.calibrate.verdicts import SYNTHETIC_SEED
from scripts.histories import KINDS, LABELS, SHORTEST, Clean, Floats, Rng, clean, is_clear, loudness, noisy, recorded
from trainer.judge.overfit import judge

LENGTHS = (12, 20, 40, 80, 160)  # epochs
LOUD = (0.02, 0.04, 0.08)  # noise: with less, hardly anything is missed
JUDGED = ("healthy", "overfit", "underfit")
Known = tuple[Floats, Floats, Floats]  # training losses, validation losses, loudness: a history each row


def compare(count: int, known: int) -> None:
    """Judge `count` histories of each kind and length, beside an oracle who knows `known` of each label."""
    rng, rows = np.random.default_rng([SYNTHETIC_SEED, 1]), Counter[tuple[str, str, str]]()
    for n in LENGTHS:
        kinds = {label: [kind for kind in KINDS[label] if n >= SHORTEST.get(kind, 0)] for label in JUDGED}
        drawn = {label: _known(rng, label, kinds[label], n, known) for label in JUDGED}
        for label in JUDGED:
            for kind in np.repeat(kinds[label], count).tolist():
                clean_curves = clean(rng, label, [kind], n)[1:]
                noise = float(rng.choice(LOUD))
                train, val, (shape, of_train) = noisy(rng, *clean_curves, noise * loudness(kind, clean_curves[1]))
                said = judge(*recorded(rng, kind, train, val)).verdict
                wrong = {
                    "runs": True,
                    "judge": said != label,
                    "oracle": _oracle((train, val), drawn, noise, shape, of_train) != label,
                    "unclear": not is_clear(label, *clean_curves),
                    "judge, unclear": said != label and not is_clear(label, *clean_curves),
                }
                rows.update((label, kind, name) for name, is_so in wrong.items() if is_so)
    print(f"\n## Judge and oracle ({', '.join(map(str, LENGTHS))} epochs, noise of 2 to 8 %)\n")
    print("| truth | how it was made | judge wrong | oracle wrong | in the grey zone by its clean curves |")
    print("|" + " --- |" * 5)
    for label, kind in dict.fromkeys((label, kind) for label, kind, _ in rows):
        runs, judged, oracle, unclear, both = (
            rows[label, kind, name] for name in ("runs", "judge", "oracle", "unclear", "judge, unclear")
        )
        grey = f"{unclear / runs:.1%}, and {both} of {judged} wrong" if unclear else ""
        print(f"| {label} | `{kind}` | {share(judged, runs)} | {share(oracle, runs)} | {grey} |")


def _known(rng: Rng, label: str, kinds: list[str], n: int, count: int) -> Known:
    draws = [clean(rng, label, kinds, n) for _ in range(count)]
    train, val = (np.array([draw[i] for draw in draws]) for i in (1, 2))
    return train, val, np.array([loudness(kind, val) for kind, _, val in draws])


def _oracle(seen: Clean, drawn: dict[str, Known], noise: float, shape: str, of_train: float) -> str:
    """Return the likeliest label."""
    logs = {}
    for label, (train, val, loud) in drawn.items():
        logs[label] = log_likelihood((seen[0] - train) / (noise * of_train * loud), shape)
        logs[label] += log_likelihood((seen[1] - val) / (noise * loud), shape) - 2 * np.log(loud).sum(1)
    top = max(log.max() for log in logs.values())
    return max(logs, key=lambda label: LABELS[label] * np.exp(logs[label] - top).mean())


def log_likelihood(noise: Floats, shape: str) -> Floats:
    """Return the log-likelihood of each row of unit noise, up to a constant; see `histories._noise`."""
    if shape == "heavy":
        return -2 * np.log1p(noise**2).sum(1)
    if shape == "correlated":
        noise = np.concatenate([noise[:, :1], (noise[:, 1:] - 0.6 * noise[:, :-1]) / 0.8], axis=1)
    return -(noise**2).sum(1) / 2
