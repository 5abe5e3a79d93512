"""Guess which of a run's tags are its training and its validation loss, whatever its tool calls them. Pure.

Lightning says train_loss_epoch and val_loss, Keras epoch_loss in two folders, a loop of one's own Loss/train and
Loss/test. A name is read as words: its role (train, val), what it measures (loss, accuracy) and the rest, and a pair
has the same rest on both sides.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

_TRAIN = {"train", "training", "trn", "tr", "tra", "learn"}
_VAL = {"val": 0, "valid": 0, "validation": 0, "validate": 0, "vld": 0, "va": 0, "dev": 0, "holdout": 0, "heldout": 0}
_VAL |= {"eval": 1, "evaluation": 1, "test": 2, "testing": 2, "tst": 2, "te": 2}  # rank: a test is the last resort
_LOSS = {"loss": 0, "losses": 0, "nll": 1, "ce": 1, "xent": 1, "crossentropy": 1, "bce": 1, "cost": 1, "objective": 1}
_LOSS |= {"mse": 2, "rmse": 2, "mae": 2, "error": 3, "err": 3, "perplexity": 4, "ppl": 4}
_ACCURACY = {"accuracy": 0, "acc": 0, "top1": 1, "acc1": 1}
_TOTAL = {"total", "overall", "sum", "all", "full", "combined"}  # said of the whole, where parts stand beside it
_DETAIL = {"epoch": 0, "epochs": 0, "step": 2, "steps": 2, "batch": 2, "iter": 2, "iteration": 2}  # rank: epochs first
_FILLER = {"avg", "average", "mean", "running", "smoothed", "metric", "metrics", "scalar", "scalars", "log", "logs"}
_CHARACTERS = {  # in scripts without blanks between words
    "训练": "train", "訓練": "train", "学習": "train", "훈련": "train", "학습": "train",
    "验证": "val", "驗證": "val", "検証": "val", "검증": "val", "测试": "test", "テスト": "test",
    "损失": "loss", "損失": "loss", "誤差": "loss", "손실": "loss",
    "准确率": "accuracy", "準確率": "accuracy", "精度": "accuracy", "正解率": "accuracy", "정확도": "accuracy",
    "轮次": "epoch", "轮数": "epoch", "エポック": "epoch", "에포크": "epoch", "步数": "step", "步": "step", "集": "",
}  # fmt: skip
_FOREIGN = {  # German, French, Spanish, Portuguese, Italian, Russian, without accents
    "train": "trainings entrainement apprentissage entrenamiento treinamento treino addestramento обучение обучения",
    "val": "validierung validierungs validacion validacao validazione валидация валидации",
    "loss": "verlust verluste fehler perte pertes perdida perdidas perda perdita потери ошибка",
    "accuracy": "genauigkeit exactitud acuracia accuratezza exactitude точность",
    "epoch": "epoche epochen epoque epoques epoca epocas эпоха",
    "step": "schritt schritte etape paso passo шаг",
}
_ENGLISH = {foreign: word for word, said in _FOREIGN.items() for foreign in said.split()}
_ROLES = _TRAIN | set(_VAL)
_KNOWN = _ROLES | set(_DETAIL)
_SIDES = sorted(_ROLES | {word for word in _ENGLISH if _ENGLISH[word] in _ROLES}, key=len, reverse=True)
_MEASURES = [*_LOSS, *_ACCURACY, *(word for word in _ENGLISH if _ENGLISH[word] in ("loss", "accuracy"))]
_GLUED = re.compile(rf"^({'|'.join(_SIDES)})({'|'.join(_MEASURES)})$")


class Tags(NamedTuple):
    """The tags of one run's curves."""

    train_loss: str
    val_loss: str
    train_accuracy: str | None
    val_accuracy: str | None


class _Name(NamedTuple):
    role: str | None  # "train" or "val"
    role_rank: int
    rest: frozenset[str]  # what is neither role nor detail nor filler: what is measured, and of what
    said: frozenset[str]  # the same with filler
    detail: int
    explicit: bool  # says more than one role, as eval/train_loss: the training loss, measured in evaluation mode


_Side = tuple[str, _Name, int]  # a tag's name, what it says, how surely it means the measure
_NUMBERED = re.compile(r"(validation|valid|eval|val|test)_1\b")
_MOST_NAMES = 1 << 15  # whose reading is remembered
_MOST_PAIRED = 100  # tags of a side, of which each is paired with each
_SUMMARY = {"best", "final", "last", "min", "max"}  # said of what is no curve
_MOST_PARTS = 20  # of a loss
_MOST_OF_ONE_NAME = 5  # tags of a side that differ in nothing but punctuation


@lru_cache(maxsize=_MOST_NAMES)
def words(name: str) -> tuple[str, ...]:
    """Split a name: `trainLoss/Epoch` -> train, loss, epoch."""
    if not name.isascii():
        for written, word in _CHARACTERS.items():
            name = name.replace(written, f" {word} ")
        name = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    found = []
    for word in re.findall(r"[a-zа-я]+[0-9]*|[0-9]+", spaced.lower()):
        glued = _GLUED.match(word)
        found += [_ENGLISH.get(one, one) for one in (glued.groups() if glued else [word])]
    while "cross" in found[:-1] and found[(at := found.index("cross")) + 1] == "entropy":
        found[at : at + 2] = ["crossentropy"]
    return tuple(found)


def is_measure(word: str) -> bool:
    """Whether a word says loss or accuracy."""
    return word in _LOSS or word in _ACCURACY or word.endswith("loss")


def measure(name: str) -> str | None:
    """Return what a name says is measured: 'loss', else 'accuracy', else None."""
    return "loss" if _ranks(name, _LOSS) else "accuracy" if _ranks(name, _ACCURACY) else None


def role(name: str) -> str | None:
    """Return 'train', 'val' or None by the last word that names a role: train/val_loss is a validation loss."""
    named = [word for word in words(name) if word in _ROLES]
    if not named:
        return None
    return "train" if named[-1] in _TRAIN else "val"


def subject(name: str) -> str:
    """Strip roles and measures from a folder's name: `adam_train` and `adam_val` belong together, as do `loss_*`."""
    known = _ROLES | set(_LOSS) | set(_ACCURACY) | set(_DETAIL) | _FILLER
    return "_".join(word for word in words(name) if word not in known)


def guess(points: Mapping[str, int], train: str | None = None, val: str | None = None) -> Tags | None:
    """Return the most likely tags; None where there is no pair of losses.

    points: how many each tag has. train, val: the tags of the losses where the user names them; a tag in a sub-folder
    counts too.
    """
    loss = _pair(points, _LOSS, train, val)
    if loss is None and train is None and val is None:
        loss = _first_two(points)
    if loss is None:
        return None
    return Tags(*loss, *(_pair(points, _ACCURACY, None, None) or (None, _one_accuracy(points, loss[0]))))


def _first_two(points: Mapping[str, int]) -> tuple[str, str] | None:
    """Pair validation_0-logloss with validation_1-logloss, as XGBoost calls the sets it is given: training first."""
    second = {name.replace("1", "0", 1): name for name in points if _NUMBERED.match(name)}
    pairs = [(name, second[name]) for name in points if name in second and second[name] != name]
    return min(pairs, key=lambda pair: min(_ranks(pair[0], _LOSS), default=99), default=None)


def _one_accuracy(points: Mapping[str, int], train_loss: str) -> str | None:
    """Return the accuracy of the validation split, where training has none.

    One that names no side is validation's where the training loss names its own: train_loss, valid_loss, accuracy.
    """
    sides = _sides(points, _ACCURACY, None, None)
    unsaid = [side for side in sides["train"] if side[1].role is None and role(train_loss) is not None]
    found = [side for side in sides["val"] + unsaid if points[side[0]] > 1]
    return min(found, key=_simplest)[0] if found else None


def rivals(points: Mapping[str, int], taken: Iterable[str]) -> list[str]:
    """Return the curves of losses that might have been taken as well: not those of a step where the epoch's are."""
    taken = set(taken)
    said = {_read(name).said for name in taken}
    surest = max((min(_ranks(name, _LOSS), default=0) for name in taken), default=0)
    sides = _sides([name for name, count in points.items() if count > 1], _LOSS, None, None)
    found = {name: read for side in sides.values() for name, read, measure in side if measure <= max(surest, 1)}
    return sorted(name for name, read in found.items() if name not in taken and read.said not in said)


def parts(points: Mapping[str, int], tags: Tags) -> list[tuple[str, str]]:
    """Return the pairs of losses that are parts of one, where `tags` names one of them and no pair is the whole.

    Parts are losses by that word, of a word more each, on both sides and equally often: box_loss, cls_loss, dfl_loss.
    """
    if _read(tags.train_loss).rest <= set(_LOSS):
        return []
    of_train, of_val = (
        {
            side[1].said: side[0]
            for side in sorted(_sides(names, {"loss": 0}, None, None)[which], key=_simplest, reverse=True)
            if not side[1].rest <= set(_LOSS)
        }
        for which, like in (("train", tags.train_loss), ("val", tags.val_loss))
        for names in [[name for name in points if points[name] == points[like]]]
    )
    pairs = {said: (of_train[said], of_val[said]) for said in of_train.keys() & of_val.keys()}
    return sorted(pairs.values()) if 2 <= len(pairs) <= _MOST_PARTS else []


def _pair(
    points: Mapping[str, int], measures: Mapping[str, int], train: str | None, val: str | None
) -> tuple[str, str] | None:
    sides = _sides(points, measures, train, val)
    named = train is not None or val is not None

    def cost(train: _Side, val: _Side) -> tuple[object, ...]:
        (name, a, measure), (val_name, b, val_measure) = train, val
        return (
            points[name] < 2 or points[val_name] < 2,  # a summary at the end is no curve
            a.rest != b.rest,
            a.said != b.said,
            max(measure, val_measure),
            b.role_rank,
            len(a.rest | b.rest),
            not a.said & _TOTAL,
            a.role is None,  # Keras's CSV: loss and val_loss
            not a.explicit,
            a.detail + b.detail,
            name,
            val_name,
        )

    pairs = (
        (cost(train, val), train[0], val[0])
        for train, val in _likely(sides["train"], sides["val"])
        if train[0] != val[0] and (train[1].role or named or train[1].rest == val[1].rest)
    )
    best = min(pairs, default=None)
    return best and best[1:]


def _likely(train: Sequence[_Side], val: Sequence[_Side]) -> Iterator[tuple[_Side, _Side]]:
    """Pair each with each; of thousands, which nobody has by hand, the simplest with each and those of one name."""
    train, val = sorted(train, key=_simplest), sorted(val, key=_simplest)
    yield from itertools.product(train[:_MOST_PAIRED], val[:_MOST_PAIRED])
    if max(len(train), len(val)) > _MOST_PAIRED:
        same: dict[frozenset[str], list[_Side]] = {}
        for side in val:
            same.setdefault(side[1].rest, []).append(side)
        for side in train:
            yield from ((side, other) for other in same.get(side[1].rest, [])[:_MOST_OF_ONE_NAME])


def _simplest(side: _Side) -> tuple[object, ...]:
    name, read, measure = side
    return measure, read.role_rank, len(read.rest), read.detail, name


def candidates(names: Iterable[str], train: str | None = None, val: str | None = None) -> set[str]:
    """Return the names among which `guess` chooses."""
    names = list(names)
    both = (_sides(names, _LOSS, train, val), _sides(names, _ACCURACY, None, None))
    return {name for sides in both for side in sides.values() for name, _, _ in side}


def _sides(
    names: Iterable[str], measures: Mapping[str, int], train: str | None, val: str | None
) -> dict[str, list[_Side]]:
    """Sort names into those that may mean the measure of training, and of validation."""
    sides: dict[str, list[_Side]] = {"train": [], "val": []}
    for name in sorted(names):
        read = _read(name)
        ranks = [] if _SUMMARY & set(words(name)) else _ranks(name, measures)
        for side, given in (("train", train), ("val", val)):
            if given is not None:
                folder = name.removesuffix(given)
                if name == given or (name != folder and folder.endswith("/") and role(folder) in (None, side)):
                    sides[side].append((name, read, 0))
            elif ranks and (read.role or "train") == side:
                sides[side].append((name, read, min(ranks)))
    return sides


def _ranks(name: str, measures: Mapping[str, int]) -> list[int]:
    """Return how certainly a name means the measure, lower is surer; empty where it does not."""
    said = words(name)
    ranks = [measures[word] for word in said if word in measures]
    if measures is _LOSS and not ranks:
        ranks = [1 for word in said if word.endswith("loss")]  # logloss
        if _ROLES & set(said) and all(word in _KNOWN for word in said):
            ranks.append(9)  # tags called just train and val
        elif _ROLES & set(said) and all(word in _KNOWN | _TOTAL for word in said):
            ranks.append(2)  # train_total, beside its parts
    return ranks


@lru_cache(maxsize=_MOST_NAMES)
def _read(name: str) -> _Name:
    said = words(name)
    roles = [word for word in said if word in _ROLES]
    rank = _VAL.get(roles[-1], 0) if roles else 0
    plain = frozenset(word for word in said if word not in _KNOWN)
    rest = plain - _FILLER - _TOTAL
    detail = max((_DETAIL[word] for word in said if word in _DETAIL), default=1)
    explicit = len({word in _TRAIN for word in roles}) == 2
    return _Name(role(name), rank, rest, plain, detail, explicit)
