"""Both languages: what the judge can say has its Chinese, with the same places; files stay English."""

import argparse
import ast
import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer import config as cfg
from trainer import language
from trainer.cure.request import _parser as parser_of_cure
from trainer.evaluate.options import parser as parser_of_evaluate
from trainer.judge import overfit
from trainer.judge.advice import ADVICE
from trainer.trace.__main__ import _parser as parser_of_trace
from trainer.versus.request import _parser as parser_of_versus

JUDGE = Path(overfit.__file__).parent
PACKAGE = Path(language.__file__).parents[1]
SAYING = {"overfit", "causes", "symptoms", "steps", "data"}  # modules of the judge that write sentences
CJK = re.compile(r"[\u4e00-\u9fff]")
PLACES = re.compile(r"\{\w+(?=(?:!s)?\})")
TECHNICAL = re.compile(  # what stays in Chinese too: names of keys and of code
    r"[A-Za-z_]+([._][A-Za-z_]+)+(\(.*?\)|=\w+)?|NAME, TENSOR|momentum|gamma|milestones|\.\w+\(\)|train\(\)|"
    r"NaN|PyTorch|Python|softmax|sigmoid|dropout|forward|backward|detach|logits|log|sqrt|autograd"
)


def texts(node: ast.expr, known: dict[str, list[str]]) -> list[str]:
    """Every text that an expression can be, with 7 in the place of what is computed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return [*texts(node.body, known), *texts(node.orelse, known)]
    if isinstance(node, ast.JoinedStr):
        parts = [texts(part.value if isinstance(part, ast.FormattedValue) else part, known) for part in node.values]
        return ["".join(one) for one in itertools.product(*parts)]
    if isinstance(node, ast.Name):
        return known.get(node.id, ["7"])
    if isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant) and isinstance(node.op, ast.Mult):
        return ["", str(node.left.value)]  # the s of a plural
    return ["7"]


def assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of every variable that is given a text, which others are made of."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            for name, text in pairs:
                if isinstance(name, ast.Name) and isinstance(text, ast.IfExp | ast.JoinedStr):
                    yield name.id, text


def said(module: str) -> Iterator[str]:
    """Whole sentences of a module: strings with a space, of functions, but for docstrings and parts of others."""
    tree = ast.parse((JUDGE / f"{module}.py").read_text(encoding="utf-8"))
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr | ast.IfExp)
        for part in ast.walk(node)
        if part is not node
    }
    known: dict[str, list[str]] = {}
    for name, value in assigned(tree):
        if name not in ("said", "text", "sentence"):  # these are whole
            known.setdefault(name, []).extend(texts(value, {}))
            inside.add(id(value))
    inside |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.Raise) for part in ast.walk(node)}
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        whole = isinstance(node, ast.JoinedStr | ast.IfExp | ast.Constant) and id(node) not in inside | docstrings
        for text in texts(node, known) if whole and isinstance(node, ast.expr) else []:
            if re.search("[a-z] [a-z]", text):  # a part that is put behind others begins or ends with a space
                yield f"{'7,' if text.startswith(' ') else ''}{text}{'7' if text.endswith(' ') else ''}".lstrip("; ")


def left_english(text: str) -> str:
    """What of a text is English still in Chinese."""
    chinese = language.in_chinese(text.rstrip(","))
    return "" if CJK.search(chinese) and not re.search("[A-Za-z]{2}", TECHNICAL.sub("", chinese)) else chinese


@pytest.mark.parametrize("module", sorted(SAYING))
def test_every_sentence_of_the_judge_has_its_chinese(module: str) -> None:
    found = list(said(module))
    assert len(found) > 2
    assert [text for text in found if left_english(text)] == []


RISING = np.maximum(0, np.arange(40) - 12)
FALL = np.exp(-np.arange(40) / 6)
CURVES: dict[str, tuple[Any, Any, Any]] = {  # training loss, validation loss, validation accuracy
    "rise": (FALL, 0.2 + FALL + 0.02 * RISING, 0.9 - 0.01 * RISING),
    "loss only": (FALL, 0.2 + FALL + 0.02 * RISING, 0.8 + 0.001 * RISING),
    "holds": (FALL, 0.2 + FALL + 0.02 * RISING, 0.8 - 0.0001 * RISING),
    "gap": (np.exp(-np.arange(40) / 20), 0.75 + 0.25 * np.exp(-np.arange(40) / 3) - 0.0001 * np.arange(40), None),
    "no accuracy": (FALL, 0.2 + FALL + 0.02 * RISING, None),
    "healthy": (FALL, 0.1 + FALL, None),
    "backward": (FALL + 0.03 * RISING, 0.1 + FALL + 0.03 * RISING, None),
    "swings": (FALL, 0.5 + FALL + 0.8 * (np.arange(40) % 2), None),
    "scales": (100 * FALL + 50, 0.2 + FALL + 0.02 * RISING, None),
    "falling": (1 - np.arange(40) / 50, 1.1 - np.arange(40) / 50, None),
    "nothing": (np.ones(40), np.ones(40), None),
    "nan": (np.where(np.arange(40) > 20, np.nan, FALL), FALL, None),
    "returns": (FALL + np.where(np.arange(40) > 25, 0.9, 0), FALL, None),
    "short": (FALL[:3], FALL[:3], None),
    "no validation": (FALL, None, None),
}


@pytest.mark.parametrize("kind", CURVES)
@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_a_verdict_is_in_chinese_as_a_whole(kind: str, unit: str) -> None:
    train, val, accuracy = CURVES[kind]
    sentence = overfit.judge(train, val, val_accuracy=accuracy, unit=unit).sentence
    assert not left_english(sentence), sentence
    numbers = re.compile(r"\d+\.?\d*(?:e[+-]?\d+)?")
    assert sorted(numbers.findall(language.in_chinese(sentence))) == sorted(numbers.findall(sentence))


@pytest.mark.parametrize("finding", ADVICE)
def test_every_finding_has_its_name_reason_and_advice_in_chinese(finding: str) -> None:
    for text in (finding.replace("_", " "), ADVICE[finding].why, ADVICE[finding].words):
        assert not left_english(text), text


def test_both_languages_have_the_same_places() -> None:
    for name in language.TABLES:
        for english, chinese in language.table(name).items():
            assert sorted(PLACES.findall(english)) == sorted(PLACES.findall(chinese)), english


def test_names_and_values_of_the_user_stay_as_they_are() -> None:
    assert language.in_chinese("epochs: found 0, expected a whole number of epochs >= 1") == (
        "epochs：得到 0，应为 整数（轮）>= 1"
    )
    seen = language.in_chinese("gap is 0.1 lower at schedule.name=linear than at step (1 against 2)")
    assert seen == "差距：schedule.name=linear 比 step 低 0.1（1 对 2）"


def test_no_text_stands_in_two_tables() -> None:
    each = [english for name in language.TABLES for english in language.table(name)]
    assert [english for english in each if each.count(english) > 1] == []


@pytest.mark.parametrize(
    "parser", [parser_of_cure(), parser_of_evaluate(), parser_of_trace(), parser_of_versus()], ids=lambda one: one.prog
)
def test_the_help_of_every_command_is_in_chinese(parser: argparse.ArgumentParser) -> None:
    said = [parser.description, parser.epilog]
    said += [text for group in parser._action_groups for text in (group.title, *(a.help for a in group._group_actions))]
    assert [text for text in said if text and not CJK.search(language.in_chinese(text))] == []


def test_the_meaning_of_every_key_is_in_chinese() -> None:
    classes = [one for one in vars(cfg).values() if dataclasses.is_dataclass(one)]
    said = [f.metadata["help"] for one in classes for f in dataclasses.fields(one) if "help" in f.metadata]
    assert len(said) > 50
    assert [text for text in said if not CJK.search(language.in_chinese(text))] == []


def test_every_line_that_a_command_prints_has_its_chinese() -> None:
    """Those that are printed by `print_line` as they stand; notes that are made elsewhere are tried by hand."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print_line":
                found += [text for text in texts(node.args[0], {}) if re.search("[a-z]{2}", text)]
    assert len(found) > 20
    assert [text for text in found if not CJK.search(language.in_chinese(text))] == []
