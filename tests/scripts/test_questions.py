"""docs/questions/ shows what its commands print, in both languages, and what its pages say follows from it."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts import questions
from trainer import evaluate

TEXTS = {page.stem: page.read_text(encoding="utf-8") for page in questions.pages("en")}


def test_both_languages_have_the_same_pages_commands_pictures_answers_and_headings() -> None:
    chinese = {page.stem: page.read_text(encoding="utf-8") for page in questions.pages("zh")}
    assert list(chinese) == list(TEXTS)
    assert len(TEXTS) == 6
    for name, text in TEXTS.items():
        assert questions.commands(text)
        ours, theirs = (
            [(lines, said) for lines, _, said in questions.BLOCKS.findall(page)] for page in (text, chinese[name])
        )
        assert ours == theirs
        assert questions.pictures(text) == questions.pictures(chinese[name])
        headings = [re.findall(r"^#+", page, re.MULTILINE) for page in (text, chinese[name])]
        assert headings[0] == headings[1]


@pytest.mark.parametrize("name", TEXTS)
def test_blocks_pictures_and_claims_belong_together(name: str) -> None:
    """Each block trains a sweep of its own, asks `evaluate` about it, and has an answer and claims."""
    text = TEXTS[name]
    assert text.count("```bash\n") == text.count("```text\n") == len(questions.commands(text)) == 2
    sweeps = []
    for train, ask in questions.commands(text):
        (folder,) = re.findall(r" hydra\.sweep\.dir=outputs/([\w-]+)$", train)
        assert re.match(r"python -m trainer(\.versus| -m) ", train)
        assert re.match(rf"python -m trainer\.evaluate outputs/{folder}(/final)?( |$)", ask)
        assert f" --figures outputs/{folder}/figures" in ask or " --figures" not in ask
        sweeps.append(folder)
    assert set(CLAIMS[name]) == set(sweeps)
    for _, _, answer in questions.BLOCKS.findall(text):
        assert re.search(r"^mean ± half of its 95 % confidence interval", answer, re.MULTILINE)
    for file, figure in questions.pictures(text):
        assert figure.parts[1] in sweeps
        assert (questions.PAGES / file).stat().st_size < 60_000
        with Image.open(questions.PAGES / file) as picture:
            assert picture.width > 600


def test_every_picture_is_shown_and_every_page_listed() -> None:
    shown = {file for text in TEXTS.values() for file, _ in questions.pictures(text)}
    assert shown == {path.name for path in questions.PAGES.glob("*.png")}
    index = (questions.PAGES / "README.md").read_text(encoding="utf-8")
    for page in (*questions.pages("en"), *questions.pages("zh")):
        title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        assert f"[{title}]({page.parent.name}/{page.name})" in index


def test_an_answer_is_what_is_printed_without_the_tables_of_runs_and_effects() -> None:
    printed = (
        "Validation loss is lower; test\naccuracy is not.\nnext (more seeds): python -m trainer -m 'seed=range(9)'\n"
        "warning: one\nmore\n\nrun  seed\n0    0\n\nknob  n\n1     2  \n\nmeasure  knob\na        b\n\n"
        "gap rises\nwith knob\ntest loss falls\nrecorded beside\nit:\n- steps\n- units\n"
    )
    assert questions.answer(printed) == (
        "Validation loss is lower; test accuracy is not.\nnext (more seeds): python -m trainer -m 'seed=range(9)'\n"
        "warning: one more\n\nknob  n\n1     2\n\ngap rises with knob\ntest loss falls\n"
        "recorded beside it:\n- steps\n- units\n"
    )


def test_only_python_is_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^rm -r x: a line begins with python -m$"):
        questions.run(["rm -r x"], tmp_path)


# ------------------------------------------------------------------ what the pages say, on the runs of today


class Found:
    """An evaluation, asked about its groups and claims."""

    def __init__(self, evaluation: dict[str, Any]) -> None:
        self.evaluation = evaluation

    def mean(self, measure: str, *levels: str) -> float:
        """Of the runs in the groups whose names have these levels, such as model.depth=2."""
        groups = [group for group in self.evaluation["groups"] if set(levels) <= set(group["name"].split())]
        paths = {path for group in groups for path in group["runs"]}
        runs = [run for run in self.evaluation["runs"] if run["path"] in paths]
        assert runs, levels
        return sum(run["measures"][measure] for run in runs) / len(runs)

    def overfit(self, *levels: str) -> float:
        """The share of those runs that overfit."""
        groups = [group for group in self.evaluation["groups"] if set(levels) <= set(group["name"].split())]
        return sum(group["overfit_share"]["mean"] for group in groups) / len(groups)

    def claims(self, knob: str, measure: str = "best_val_loss", at: str | None = None) -> bool:
        """Whether an effect is claimed: over all, or at a level of another knob."""
        (effect,) = [one for one in self.evaluation["effects"] if (one["knob"], one["measure"]) == (knob, measure)]
        if at is None:
            return effect["claimed"]
        (simple,) = [simple for simple in effect["simple"] if simple["at"] == at]
        return simple["claimed"]

    def shape(self, knob: str, measure: str = "best_val_loss") -> str:
        (effect,) = [one for one in self.evaluation["effects"] if (one["knob"], one["measure"]) == (knob, measure)]
        return effect["shape"]["kind"]

    def interact(self, *knobs: str, measure: str = "best_val_loss") -> bool:
        """Whether it is claimed that what one does depends on the other."""
        return any(
            one["claimed"] and set(one["knobs"]) == set(knobs) and one["measure"] == measure
            for one in self.evaluation["interactions"]
        )

    @property
    def use(self) -> dict[str, Any]:
        return self.evaluation["recommendation"]["knobs"]


def one_rate(found: Found) -> None:
    assert found.claims("optimizer")
    assert found.mean("best_val_loss", "optimizer=sgd") > 2 * found.mean("best_val_loss", "optimizer=adam")
    assert found.use == {"optimizer": "adam"}


def sgd_or_adam(found: Found) -> None:
    assert not found.claims("optimizer")
    rates = {run["config"]["optimizer._target_"]: run["config"]["optimizer.lr"] for run in found.evaluation["runs"]}
    assert rates["torch.optim.SGD"] > 10 * rates["torch.optim.Adam"]


def dropout_noisy(found: Found) -> None:
    for batchnorm in ("model.batchnorm=false", "model.batchnorm=true"):
        assert found.claims("model.dropout", at=batchnorm)
        worse, better = (found.mean("best_val_loss", batchnorm, f"model.dropout={rate}") for rate in ("0", "0.5"))
        assert worse > better
        assert found.overfit(batchnorm, "model.dropout=0") >= 0.9
        assert found.overfit(batchnorm, "model.dropout=0.5") < 0.4
        assert found.mean("final_train_loss", batchnorm, "model.dropout=0") < 0.1


def dropout_clean(found: Found) -> None:
    assert not found.claims("model.dropout")
    assert not found.claims("model.dropout", "test_accuracy")
    assert found.claims("model.dropout", "gap")
    assert found.mean("gap", "model.dropout=0") > found.mean("gap", "model.dropout=0.5")
    assert found.claims("model.batchnorm")
    assert found.mean("best_val_loss", "model.batchnorm=true") < found.mean("best_val_loss", "model.batchnorm=false")


def remedy(knob: str, without: str, with_it: str) -> Callable[[Found], None]:
    """The check that a level of a knob makes sixteen layers train, and that two are better with it too."""

    def check(found: Found) -> None:
        deep, shallow = "model.depth=16", "model.depth=2"
        assert found.interact("model.depth", knob)
        assert found.claims(knob, at=deep)
        assert found.mean("test_accuracy", deep, without) < 0.6
        assert found.mean("test_accuracy", deep, with_it) > 0.9
        assert min(found.mean("test_accuracy", shallow, level) for level in (without, with_it)) > 0.95
        assert found.mean("best_val_loss", shallow, with_it) < found.mean("best_val_loss", deep, with_it)
        assert found.use["model.depth"] == 2

    return check


def batch_one_rate(found: Found) -> None:
    assert found.shape("data.batch_size") == "rising"
    smallest, largest = (found.mean("gap", f"data.batch_size={size}") for size in (256, 16))
    assert smallest < largest - 0.05  # the page says which is smallest, not that a fall is shown
    assert found.use == {"data.batch_size": 16}
    small, large = (found.mean("best_val_loss", f"data.batch_size={size}") for size in (16, 256))
    assert large - small > 0.5


def batch_size(found: Found) -> None:
    rates = {run["config"]["data.batch_size"]: run["config"]["optimizer.lr"] for run in found.evaluation["runs"]}
    losses = {}
    for run in found.evaluation["runs"]:
        losses.setdefault(run["config"]["data.batch_size"], []).append(run["measures"]["best_val_loss"])
    assert sum(losses[256]) / len(losses[256]) - sum(losses[16]) / len(losses[16]) < 0.05
    assert rates[16] < rates[256] < 16 * rates[16]


def label_noise(found: Found) -> None:
    assert found.shape("data.label_noise") == "rising"
    assert found.shape("data.label_noise", "test_accuracy") == "falling"
    shares = [found.overfit(f"data.label_noise={share}") for share in ("0", "0.1", "0.2", "0.4")]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] == 1
    for share in ("0", "0.1", "0.2", "0.4"):
        level = f"data.label_noise={share}"
        assert found.mean("final_train_accuracy", level) > 0.99
    last, best = (found.mean(name, "data.label_noise=0.4") for name in ("final_test_accuracy", "test_accuracy"))
    assert last < best - 0.05


def double_descent(found: Found) -> None:
    best = {width: found.mean("best_val_loss", f"model.width={width}") for width in (2, 64, 256)}
    assert best[2] > 2 * best[64]  # falls, and is flat from there
    assert best[256] < 1.2 * best[64]
    assert found.shape("model.width", "gap") == "peak inside"
    last = {width: found.mean("final_val_loss", f"model.width={width}") for width in (2, 4, 8, 16, 32, 64, 128, 256)}
    assert max(last, key=last.__getitem__) in (4, 8)
    assert last[256] < 0.8 * max(last.values())
    assert (
        found.mean("final_train_accuracy", "model.width=4") < 0.99 < found.mean("final_train_accuracy", "model.width=8")
    )


def decay_same(found: Found) -> None:
    adam, adamw = "optimizer=adam", "optimizer=adamw"
    none, much = "optimizer.weight_decay=0", "optimizer.weight_decay=0.1"
    assert found.mean("best_val_loss", adam, none) == found.mean("best_val_loss", adamw, none)  # the same bits
    assert found.interact("optimizer", "optimizer.weight_decay")
    assert found.claims("optimizer.weight_decay", at=adam)
    assert not found.claims("optimizer.weight_decay", at=adamw)
    assert found.mean("best_val_loss", adam, much) > 1.5 * found.mean("best_val_loss", adam, none)


def decay_best(found: Found) -> None:
    assert not found.claims("optimizer")


CLAIMS: dict[str, dict[str, Callable[[Found], None]]] = {
    "sgd-or-adam": {"one-rate": one_rate, "sgd-or-adam": sgd_or_adam},
    "dropout": {"dropout-noisy": dropout_noisy, "dropout-clean": dropout_clean},
    "depth": {
        "depth-batchnorm": remedy("model.batchnorm", "model.batchnorm=false", "model.batchnorm=true"),
        "depth-init": remedy("model.init", "model.init=default", "model.init=he_normal"),
    },
    "batch-size": {"batch-one-rate": batch_one_rate, "batch-size": batch_size},
    "label-noise": {"label-noise": label_noise, "double-descent": double_descent},
    "weight-decay": {"decay-same": decay_same, "decay-best": decay_best},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
def test_commands_run_and_what_the_page_says_holds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for (train, ask), claims in zip(questions.commands(TEXTS[name]), CLAIMS[name].values(), strict=True):
        said = questions.answer(questions.run([train, ask], tmp_path))
        arguments = shlex.split(ask.partition(" --figures")[0])[3:]
        assert evaluate.main([*arguments, "--json", "found.json"]) == 0
        found = json.loads(Path("found.json").read_text(encoding="utf-8"))
        claims(Found(found))
        for knob in {effect["knob"] for effect in found["effects"]}:
            assert f"{knob}=" in said
    for _, figure in questions.pictures(TEXTS[name]):
        assert len(questions.small(tmp_path / figure)) < 60_000
