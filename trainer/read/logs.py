"""Read the history of a run from what a training loop printed: lines such as `Epoch 3/10 - loss: 0.3 - val_loss: 0.5`.

A number is called by the words before it, after the last comma, bar or dash. A side that stands alone (`train | loss
0.3`) holds for the line's other names, an epoch or a step for the lines below it.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from trainer.read import histories, tag_names
from trainer.read.bounded import at_most, in_utf8, opened, rest
from trainer.read.numbers import cell_number
from trainer.read.tables import Table, unit_of

_MOST_LOG = 1 << 24  # bytes
_MOST_ROWS = 200_000  # a few hundred bytes each
_MOST_WORDS = 3  # of a name
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,300}(?:\.\d{0,300})?(?:[eE][-+]?\d{1,9})?|nan|inf|NaN|Inf)(?!\w|\.\d)%?")
_LIST = re.compile(r"\b(\w{1,60})['\"]? ?[:=] ?\[([-+\w., \n]+)\]")  # print(history.history), losses = [...]
_SEPARATOR = re.compile(r"[,;|\t]| - ")
_WORD = re.compile(r"[^\W\d][\w./'-]*")
_NUMBERED = re.compile(  # [3] train-rmse:0.5, as XGBoost; E3 loss=0.5; 第3轮
    r"^\s*\[?(\d{1,15})\]?(?=:?\s)|(?:^\s*[Ee](?=\d+:?\s)|第\s*(?=\d+\s*[轮輪代]))(\d{1,15})"
)


def read_log(path: Path, train_tag: str | None = None, val_tag: str | None = None) -> Table:
    """Read what was printed, a row for each line with a loss or an accuracy. Raises Unreadable."""
    with opened(path) as file:
        text = histories.decoded(in_utf8(rest(file, path, _MOST_LOG)))
    lists = [(name, [cell_number(cell) for cell in cells.split(",")]) for name, cells in _LIST.findall(text)]
    columns = {name: [cell for cell in cells if cell is not None] for name, cells in lists if len(cells) > 1}
    if tag_names.guess({name: len(cells) for name, cells in columns.items()}, train_tag, val_tag):
        return histories.of_columns(columns, path, train_tag, val_tag)
    rows = list(islice(_rows(text.split("\n"), train_tag, val_tag), _MOST_ROWS + 1))
    at_most(_MOST_ROWS, len(rows), "lines with a loss", path)
    return histories.of_rows(rows, path, train_tag, val_tag)


def _rows(lines: Iterable[str], train_tag: str | None, val_tag: str | None) -> Iterator[dict[str, float]]:
    axes: dict[str, float] = {}
    is_curve: dict[str, bool] = {}
    for line in lines:
        values: dict[str, float] = {}
        own: dict[str, float] = {}
        seen = line.replace("\b", "\r").rstrip("\r").rpartition("\r")[2]  # a progress bar writes over itself
        for name, value in _named(seen):
            if name not in is_curve:
                is_curve[name] = bool(tag_names.candidates([name], train_tag, val_tag))
            if unit := unit_of(name):
                own.setdefault(unit, value)
            elif is_curve[name]:
                values.setdefault(name, value)
        if own:
            axes = {unit: value for unit, value in axes.items() if unit == "epoch"} | own
        if values:
            yield axes | values


def _named(line: str) -> Iterator[tuple[str, float]]:
    """Return the numbers of a line with their names."""
    side, end = "", 0
    if numbered := _NUMBERED.search(line):
        yield ("epoch", float(numbered[2])) if numbered[2] else ("iteration", float(numbered[1]))
        end = numbered.end()
    for found in _NUMBER.finditer(line, end):
        between, end = line[end : found.start()], found.end()
        sides = [word for word in _WORD.findall(between) if tag_names.role(word) and len(tag_names.words(word)) == 1]
        side = sides[-1] if sides else side
        said = _WORD.findall(_SEPARATOR.split(between)[-1])[-_MOST_WORDS:]
        name = said[-1] if said and _is_whole(said[-1]) else " ".join(said)
        value = cell_number(found[0])
        if name and value is not None and not between.endswith("/"):  # 3/10: of ten
            yield name if tag_names.role(name) or not side or unit_of(name) else f"{side}/{name}", value


def _is_whole(word: str) -> bool:
    """Whether a word is a name: train_loss, epoch."""
    return unit_of(word) is not None or (tag_names.role(word) is not None and len(tag_names.words(word)) > 1)
