"""The order of what is printed: the answer, what speaks against it, then tables; each sweep on its own."""

import io
from typing import Any

import pytest

from tests import fake_runs
from trainer.evaluate import evaluate
from trainer.report.terminal import print_tables


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
    text = printed(evaluation)
    assert text.startswith("use ")
    in_order(text, "use ", "warning: ", "run  ", "54 runs: ", "n  overfit", " after correction)")
    assert text.count(evaluation["recommendation"]["sentence"][:40]) == 1


def test_an_answer_comes_first_and_is_not_repeated(evaluation: dict[str, Any]) -> None:
    effect = evaluation["effects"][0]
    simple = [{"at": "model.batchnorm=true", "sentence": "gap is higher", "contrasts": [{"claimed": True}]}]
    shape = {"kind": "decreasing", "sentence": "gap falls with dropout, all the way"}
    more = {
        "answer": {"text": f"Dropout decides: {effect['sentence']}.", "next": "python -m trainer -m 'seed=range(3,9)'"},
        "effects": [effect | {"simple": simple, "shape": shape}, *evaluation["effects"][1:]],
    }
    text = printed(evaluation | more)
    assert text.startswith("Dropout decides: ")
    in_order(text, "Dropout", "\nnext: python -m trainer -m 'seed=range(3,9)'\n", "warning: ", "run  ", "54 runs: ")
    in_order(text, "54 runs", "at model.batchnorm=true: gap is higher\n", "gap falls with dropout, all the way\n")
    assert evaluation["recommendation"]["sentence"] not in text.replace("\n", " ")
    assert text.replace("\n", " ").count(effect["sentence"][:60]) == 1


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
    text = printed(fake_runs.two_sweeps(evaluation))
    in_order(text, "Two sweeps.", "\nfirst\n", "The first says", "27 runs: ", "\nsecond\n", "The second says")
    assert text.count("27 runs: ") == 2
    assert "54 runs" not in text
