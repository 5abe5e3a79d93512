"""Tell runs apart by what their columns or tags are called. Pure."""

import re
from collections.abc import Iterator, Mapping

from trainer.read import tag_names
from trainer.read.curves import Series

MOST_RUNS = 1000  # in one table
_NUMBERED = re.compile(
    r"(?i)(?<![a-z])((?:fold|run|seed|trial|exp|experiment|rep|repeat|version)[ _-]?[0-9]+)(?![0-9])"
)
_PARTS = {"kl", "kld", "recon", "reconstruction", "rec", "box", "bbox", "cls", "class", "dfl", "obj", "reg", "aux"}
_PARTS |= {"mask", "g", "d", "gen", "disc", "generator", "discriminator", "adv", "gan", "rpn", "dice", "l1", "l2"}
_PARTS |= {"perceptual"}


def by_column(series: Mapping[str, Series], exported: bool = True) -> Iterator[tuple[str, dict[str, Series]]]:
    """Tell runs apart by what their columns are called, where each has both losses: `fold0_train_loss`.

    exported: names may begin with a run's, as Weights & Biases exports them: `run-a - train_loss`.
    """
    for split in (_exported, _numbered, _prefixed) if exported else (_numbered,):
        groups: dict[str, dict[str, Series]] = {}
        common: dict[str, Series] = {}
        for name, points in series.items():
            label, rest = split(name)
            (groups.setdefault(label, {}) if label else common)[rest] = points
        if len(groups) > MOST_RUNS:
            continue
        pairs = {label: tags for label, tags in groups.items() if has_pair(tags)}
        is_exported = split is _exported and bool(groups)
        if (len(pairs) > 1 and not has_pair(common)) or is_exported:
            yield from ((label, common | tags) for label, tags in (groups if is_exported else pairs).items())
            return
    yield "", dict(series)


def has_pair(series: Mapping[str, Series], train_tag: str | None = None, val_tag: str | None = None) -> bool:
    """Whether both losses are among curves."""
    counts = {name: len(points.steps) for name, points in series.items()}
    return tag_names.guess(counts, train_tag, val_tag) is not None


def _exported(name: str) -> tuple[str, str]:
    label, _, tag = name.rpartition(" - ")
    return label.strip(), tag.strip()


def _numbered(name: str) -> tuple[str, str]:
    """Take the number of a fold, a run or a seed out of a name: `fold0_train_loss` -> fold0, train_loss."""
    found = _NUMBERED.search(name)
    return (found[1], name.replace(found[1], "", 1).strip("/_-. ")) if found else ("", name)


def _prefixed(name: str) -> tuple[str, str]:
    """Take what stands before the role: `adam_train_loss` -> adam, train_loss; parts of a loss are no runs."""
    said = tag_names.words(name)
    at = next((i for i, word in enumerate(said) if tag_names.role(word)), 0)
    before = said[:at]
    if not before or set(before) & _PARTS or any(tag_names.is_measure(word) for word in before):
        return "", name
    return "_".join(before), "_".join(said[at:])
