"""The order of what is printed: the answer, what speaks against it, then tables; each sweep on its own."""

import io
import itertools
import re
from typing import Any

import pytest

from tests import fake_runs
from trainer.evaluate import evaluate
from trainer.report import tables, vocabulary
from trainer.report.terminal import _place, _rank, print_tables


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return evaluate([fake_runs.sweep(tmp_path_factory.mktemp("sweeps") / "s", seeds=3, events=False)])[0]


def printed(evaluation: dict[str, Any]) -> str:
    out = io.StringIO()
    print_tables(evaluation, out)
    return out.getvalue()


def in_order(text: str, *parts: str) -> None:
    """Each part occurs, and after the one before it."""
    at = [text.index(part) for part in parts]
    assert at == sorted(at), parts


def test_without_an_answer_the_recommendation_comes_first(evaluation: dict[str, Any]) -> None:
    text = printed(evaluation | {"answer": None})
    assert text.startswith(evaluation["recommendation"]["sentence"][:40])
    in_order(text, "warning: ", "\nrun  ", "54 runs: ", "n  overfit", "difference  ")
    assert text.count(evaluation["recommendation"]["sentence"][:40]) == 1


def test_an_answer_comes_first_and_is_not_repeated(evaluation: dict[str, Any]) -> None:
    """Effects are a table, one line each; shapes and interactions a sentence, where the answer does not have it."""
    effect = evaluation["effects"][0]
    contrast = {key: effect["contrasts"][0][key] for key in ("a", "b", "measure", "low", "high", "n", "answer")}
    contrast |= {"difference": 0.25, "p": 0.001, "p_adjusted": 0.0123, "claimed": True}
    simple = [{"at": "model.batchnorm=true", "sentence": "x", "claimed": True, "contrasts": [contrast]}]
    shapes = [{"kind": "decreasing", "sentence": sentence} for sentence in ("gap falls", "Loss peaks inside")]
    more = {
        "answer": {"text": "Gap falls with dropout.", "next": "python -m trainer -m 'seed=range(3,9)'"},
        "effects": [effect | {"simple": simple, "shape": shapes[0]}, effect | {"simple": [], "shape": shapes[1]}],
        "sweeps": [{"name": "the only one"}],
    }
    more["effects"][1] |= {"why": [{"sentence": "the first step is 9 times as long"}]}
    text = printed(evaluation | more)
    assert text.startswith("Gap falls with dropout.\nnext: python -m trainer -m 'seed=range(3,9)'\nwarning: ")
    more["answer"]["reason"] = "more seeds"
    assert "\nnext (more seeds): python -m trainer -m 'seed=range(3,9)'\n" in printed(evaluation | more)
    in_order(
        text, "warning: ", "\nrun  ", "54 runs: ", "difference  ", "\nLoss peaks inside\n", "\nrecorded beside what "
    )
    assert "evidence, not a cause:\n- the first step is 9 times as long\n" in text
    assert "evidence, not a cause:\n- the first step is 9 times as long\n" in text
    (line,) = [line for line in text.splitlines() if "at batchnorm=true" in line]
    assert re.search(r"\+(0.25|25.00 points) +\S+ to \S+ +3 +0.001 +0.012  ", line)
    assert evaluation["recommendation"]["sentence"][:40] not in text
    assert text.lower().count("gap falls") == 1
    assert "the only one" not in text


def test_groups_with_failures_and_with_what_was_chosen_for_each(evaluation: dict[str, Any]) -> None:
    groups = [
        group | {"tuned": {"optimizer.lr": 0.01}, "failed_share": {"mean": 1 / 3, "low": 0.1, "high": 0.8, "n": 3}}
        for group in evaluation["groups"]
    ]
    text = printed(evaluation | {"groups": groups})
    (header,) = [line for line in text.splitlines() if " overfit " in line and " n " in line]
    assert header.split()[:8] == ["batchnorm", "dropout", "optimizer", "lr", "(chosen)", "n", "overfit", "failed"]
    assert " 0.01         3   3 of 3  1 of 3 " in text
    assert "failed" not in printed(evaluation)


def test_each_sweep_stands_under_its_name(evaluation: dict[str, Any]) -> None:
    text = printed(fake_runs.two_sweeps(evaluation) | {"not_compared": ["first and second: other data"]})
    in_order(text, "Two sweeps.", "warning: first and second: other data", "\nfirst\n", "The first says", "27 runs: ")
    in_order(text, "27 runs: ", "\nsecond\n", "The second says")
    assert text.count("27 runs: ") == 2
    assert "54 runs" not in text
    assert text.count(evaluation["warnings"][0]["text"][:60]) == 2  # under each, not above both


def test_what_each_sweep_says_is_not_said_above_them(evaluation: dict[str, Any]) -> None:
    """And runs that belong to none are shown at the end."""
    both = fake_runs.two_sweeps(evaluation)
    both["answer"] = {"text": " ".join(part["answer"]["text"] for part in both["sweeps"]), "next": None}
    both["sweeps"][1]["runs"] = both["sweeps"][1]["runs"][1:]
    text = printed(both)
    assert text.startswith("2 sweeps, each compared on its own\n")
    assert text.count("The first says this.") == 1
    in_order(text, "26 runs: ", "\nnot compared\n", "1 run: ")


def test_where_something_was_tuned_groups_stand_at_their_own_best(evaluation: dict[str, Any]) -> None:
    best = [group["name"] for group in evaluation["groups"] if group["knobs"]["model.dropout"] == 0.5]
    text = printed(evaluation | {"tuned": ["model.dropout"], "chosen": {name: name for name in best}})
    table = text[text.index("n  overfit") : text.index("each at its own best model.dropout, chosen by the validation")]
    assert len(table.splitlines()) == 1 + len(best) + 1


def test_groups_are_told_by_what_decides_the_best_first() -> None:
    def group(name: str, **means: float) -> dict[str, Any]:
        return {"name": name, "measures": {measure: {"mean": mean} for measure, mean in means.items()}}

    groups = [group("a", best_val_loss=0.3, gap=0.1), group("b", gap=0.5), group("c", best_val_loss=0.2, gap=0.2)]

    def names(criterion: str | None) -> str:
        return "".join(one["name"] for one in tables.ranked({"recommendation": {"criterion": criterion}}, groups))

    assert (names("best_val_loss"), names(None)) == ("cab", "bca")


def test_where_one_measure_alone_has_room_its_name_stands_above_the_differences(
    evaluation: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    text = printed(evaluation)
    (header,) = [line for line in text.splitlines() if line.startswith("knob ")]
    assert header.split()[1:] in (["gap"], ["best", "val"])
    rows = itertools.takewhile(lambda row: "more in" not in row, text.partition(header)[2].splitlines()[1:])
    assert {row.split()[0] for row in rows if row[0] != " "} == {"dropout", "optimizer", "batchnorm"}


def test_the_counts_of_verdicts_are_those_of_the_table(evaluation: dict[str, Any]) -> None:
    """One vocabulary: what the table calls not overfit is not counted as healthy."""
    runs = [run | {"health": []} for run in evaluation["runs"]]
    healthy = [run["path"] for run in runs if run["verdict"] == "healthy"]
    finding = {"finding": "dead_units", "where": "a", "step": 1, "sentence": "s", "why": "w", "try": "t"}
    runs = [run | {"health": [finding]} if run["path"] in healthy[:2] else run for run in runs]
    text = printed(evaluation | {"runs": runs})
    (counted,) = [line for line in text.splitlines() if line.startswith(f"{len(runs)} runs: ")]
    counts = {name: int(count) for count, name in re.findall(r"(\d+) ([a-z ]+?)(?:[:,;]| \(|$)", counted)}
    assert counts.pop("runs") == len(runs) == sum(counts.values())
    assert (counts["not overfit"], counts["healthy"]) == (2, len(healthy) - 2)
    assert "(healthy curves, but of a run with findings or that has learned little)" in counted


def test_what_is_left_out_of_many_runs_for_one_reason_is_said_once(evaluation: dict[str, Any]) -> None:
    problems = [f"sweep/{n}: nothing to judge: ValueError" for n in range(12)]
    text = printed(evaluation | {"problems": [*problems, "other: torn"]})
    assert text.count("nothing to judge") == 1
    assert "left out: sweep/0, sweep/1, sweep/2 and 9 more: nothing to judge: ValueError\nleft out: other: torn" in text


def test_below_the_levels_of_another_knob_stands_whether_they_differ(evaluation: dict[str, Any]) -> None:
    """The clearest interaction, with its own p: not one of those beside the levels."""
    asked = [one for one in evaluation["interactions"] if one["measure"] == evaluation["effects"][0]["measure"]]
    clearest = min(asked, key=lambda one: one["p_adjusted"])
    row = next(
        line for line in printed(evaluation).splitlines() if f" × {clearest['knobs'][1].rpartition('.')[2]}" in line
    )
    levels = " − ".join(map(tables.cell, clearest["a"]))
    size = vocabulary.difference(clearest["difference"], clearest["measure"])
    assert [part for part in re.split("  +", row) if part][::2][:2] == [levels, size]
    assert re.search(
        rf" {re.escape(vocabulary.small(clearest['p']))} +{re.escape(vocabulary.small(clearest['p_adjusted']))}  ", row
    )


def test_runs_stand_group_by_group_and_by_seed(evaluation: dict[str, Any]) -> None:
    """However bad: of more than are shown those with the worst verdicts, in the same order."""
    runs = [run for run in evaluation["runs"] if run["config"]["optimizer.name"] == "adam"]
    paths = {run["path"] for run in runs}
    groups = [group for group in evaluation["groups"] if paths & {*group["runs"]}]
    header, *rows = printed(evaluation | {"runs": runs[::-1], "groups": groups}).partition("\nrun ")[2].splitlines()
    assert " best epoch " in header
    shown = [row.split()[0] for row in rows[: len(runs)]]
    names = {run["path"]: run["name"] for run in runs}
    assert shown == [names[path] for group in groups for path in group["runs"]]
    whole = [row.split()[0] for row in printed(evaluation).partition("\nrun ")[2].splitlines()[1:31]]
    order = [path.rpartition("/")[2] for group in evaluation["groups"] for path in group["runs"]]
    assert whole == sorted(whole, key=order.index)
    overfit = [run["name"] for run in evaluation["runs"] if run["verdict"] == "overfit"]
    assert {*whole} <= {*overfit}
    assert len(overfit) > 30


def test_why_p_is_not_that_of_a_t_test_is_said_once_below_the_differences(evaluation: dict[str, Any]) -> None:
    text, groups = printed(evaluation), len(evaluation["groups"])
    note = f"intervals and p go by the noise that groups share ({(groups - 1) * 2} degrees of freedom)"
    assert " ".join(text.split()).count(note) == 1
    in_order(text, "\nmeasure ", "\nintervals and p go by")
    assert "intervals and p" not in printed(evaluation | {"effects": []})


def test_the_best_level_stands_beside_every_other_in_what_decides(evaluation: dict[str, Any]) -> None:
    effect = next(one for one in evaluation["effects"] if one["measure"] == "best_val_loss" and len(one["levels"]) == 3)
    best = min(effect["levels"], key=lambda level: level["mean"])["value"]
    told = vocabulary.told(effect, True)
    assert told[0] == vocabulary.largest(effect)
    assert {frozenset((one["a"], one["b"])) for one in told} >= {
        frozenset((best, level["value"])) for level in effect["levels"] if level["value"] != best
    }
    assert vocabulary.told(effect, False) == told[:1]


def test_a_level_that_is_null_is_told_as_one_types_it() -> None:
    assert [tables.level({"clip_norm": None, "lr": 0.1}, knob) for knob in ("clip_norm", "lr", "momentum")] == [
        "null", "0.1", "",
    ]  # fmt: skip


def test_what_decides_has_a_column(evaluation: dict[str, Any]) -> None:
    by_accuracy = evaluation | {"recommendation": evaluation["recommendation"] | {"criterion": "best_val_accuracy"}}
    for run in by_accuracy["runs"]:
        run["measures"]["best_val_accuracy"] = 0.5
    assert " best val acc. " in printed(by_accuracy)
    assert " best val acc. " not in printed(evaluation)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model.depth=2", "depth=2"),
        ("model.depth", "depth"),
        ("model.batchnorm_position=after", "batchnorm_position=after"),
        ("model.a_very_long_name_of_a_knob=before", "…ong_name_of_a_knob=before"),
        ("model.batchnorm_position_", "batchnorm_position_"),
        ("data.name_of_a_table=a/b.csv", "name_of_a_table=a/b.csv"),
    ],
)
def test_a_long_name_of_a_level_keeps_the_end_that_tells_it_from_others(text: str, shown: str) -> None:
    assert _place(text) == shown


def test_of_healthy_runs_the_doubtful_ones_are_among_the_worst() -> None:
    first, second = (
        {"verdict": "healthy", "measures": {"gap": gap}, "health": health, "evidence": {}}
        for gap, health in ((0.3, []), (0.1, [{"kind": "vanishing"}]))
    )
    assert vocabulary.is_doubtful(second)
    assert not vocabulary.is_doubtful(first)
    assert sorted([first, second], key=_rank) == [second, first]


def test_what_the_last_losses_are_is_said_where_they_are_of_more_than_one_epoch(evaluation: dict[str, Any]) -> None:
    said = "last val and gap are means of the last tenth of the epochs"
    runs = [{**run, "evidence": {**run["evidence"], "epochs": 19}} for run in evaluation["runs"]]
    assert said not in printed(evaluation | {"runs": runs})
    runs[-1]["evidence"]["epochs"] = 20
    assert printed(evaluation | {"runs": runs}).count(said) == 1
