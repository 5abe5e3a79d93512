"""python -m trainer.trace as a command: wrong gradients, what it prints and writes, mistakes."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from tests.helpers import strict
from tests.trace.examples import quick
from trainer.trace import facts, svg, tree
from trainer.trace.__main__ import main

FAULTS = {
    "InALayer": r"right at square \(Squares\), wrong where SquareBackward hands it on to first: at first\[\d,\d\] it",
    "InForward": r"right at last input \(Linear\), wrong where SquareBackward hands it on to relu: at relu\[\d,\d\]",
    "OfAWeight": r"right at last input \(Linear\), wrong where ProductBackward hands it on to weight: at weight\[",
}


@pytest.mark.parametrize("name", quick([(name,) for name in FAULTS], 0))
def test_a_wrong_backward_is_caught_and_named(models: None, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = ["model=custom", f"model._target_=traced_models.{name}"]
    assert main([*target, "--steps", "1"]) == 1
    said = capsys.readouterr().out
    assert re.search("WRONG GRADIENT: " + FAULTS[name], said), said
    assert main([*target, "--part", "1", "--steps", "1"]) == 1  # whatever is shown
    assert "WRONG GRADIENT" in capsys.readouterr().out
    assert main([*target, "+model.factor=2.0", "--steps", "1"]) == 0
    assert "WRONG" not in capsys.readouterr().out


def test_a_kink_is_no_mistake(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=custom", "model._target_=traced_models.Kinks", "--steps", "1"]) == 0
    said = capsys.readouterr().out
    assert "zero (call 2)" in said
    assert "same" in said


# ------------------------------------------------------------------ the command


def test_json_holds_everything_and_is_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seed=3", "--json", "-", "--steps", "2"]) == 0
    out, err = capsys.readouterr()
    found = strict(out)
    assert {"parameters", "layers", "graph", "gradients", "step", "after", "rows", "rivals"} <= set(found)
    assert len(found["rows"]) == 2
    assert found["gradients"][0]["check"]["ok"] is True
    assert "7  MORE STEPS" in err
    assert main(["seed=3", "--json", str(tmp_path / "t.json"), "--steps", "2"]) == 0
    assert json.loads((tmp_path / "t.json").read_text()) == found
    assert capsys.readouterr().out == err  # the same numbers every time


def test_svg_is_whole_and_escaped(models: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "graph.svg"
    assert main(["--svg", str(target), "model=custom", "model._target_=traced_models.Odd", "--steps", "1"]) == 0
    picture = ElementTree.fromstring(target.read_text())
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert 'output of <b>"& (5, 10)' in texts
    assert {"AccumulateGrad", "AddmmBackward0", "loss"} <= set(texts)


def test_every_operation_has_a_box_and_every_step_an_arrow(default: facts.Trace) -> None:
    picture = ElementTree.fromstring(svg.draw(default))
    boxes = [e for e in picture.iter("{http://www.w3.org/2000/svg}rect") if e.get("rx")]
    arrows = [e for e in picture.iter("{http://www.w3.org/2000/svg}path") if e.get("marker-end")]
    assert len(boxes) == len({(e.get("x"), e.get("y")) for e in boxes}) == len(default.graph)
    assert len(arrows) == sum(len(set(node.next)) for node in default.graph)


def test_rows_of_any_graph_hold_every_operation_below_all_that_lead_to_it() -> None:
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        size = 2 + seed % 12
        ends = [n for n in range(size) if n == size - 1]
        following: list[list[int]] = []
        for n in range(size):
            later = torch.randperm(size - n - 1, generator=generator)[: 1 + seed % 3] + n + 1
            following.append([] if n in ends else sorted({n + 1, *later.tolist()}))
        graph = [facts.Node(n, f"op{n}", None, None, nexts) for n, nexts in enumerate(following)]
        order = [node.number for row in tree.rows(graph) for node in row.chain]
        assert sorted(order) == list(range(size))
        assert all(order.index(a) < order.index(b) for a in range(size) for b in following[a])


MISTAKES = {
    "--member foo": "--member: no parameter foo; choose from layers.0.bias, layers.0.weight, layers.1.bias, "
    "layers.1.weight",
    "--member layers.0.wieght[1,2]": "--member: no parameter layers.0.wieght; did you mean layers.0.weight?",
    "--member layers.0.weight[5,0]": "--member: layers.0.weight[5,0] is not in its shape (5, 4); the last entry is "
    "layers.0.weight[4,3]",
    "--member layers.0.weight[1": "--member: found layers.0.weight[1, expected a parameter and an index, e.g. "
    "layers.0.weight[2,3]",
    "--membre x": "--membre: no such flag; did you mean --member?",
    "-m seed=1,2": "-m: no such flag; a trace takes one configuration; sweeps are for python -m trainer",
    "--part 8": "--part 8: parts 8 to 10 are of functions, problem=NAME; this has 1, 2, 3, 4, 5, 6, 7",
    "epochs=0": "epochs: found 0, expected a whole number of epochs >= 1",
    "optimizer=adamm": "optimizer=adamm: no such option; did you mean adam?",
    "--svg nowhere/x.svg": "nowhere/x.svg: there is no folder nowhere; make it first: mkdir -p nowhere",
    "--json .": ".: is a folder; give the file's name, such as trace.json",
    "model.init_scale=1e200": "the loss of the first step is nan: it has no gradient; look at the inputs",
    "model=custom model._target_=traced_models.Detached": "model._target_: no parameter takes part in the loss; is "
    "there a detach or no_grad in forward?",
    "model=custom model._target_=traced_models.Broken": "model._target_: the backward pass fails: KeyError: 'nothing "
    "saved'",
    "model=custom model._target_=traced_models.Random": "model._target_: Random gives another loss for the same "
    "weights, examples and state of torch's generator; draw random numbers with torch alone",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_each_mistake_in_words(line: str, models: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"trainer.trace: 1 problem; nothing was traced (python -m trainer.trace --help)\n  {MISTAKES[line]}\n"


def test_a_module_that_makes_float32_tensors_is_told_so(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=custom", "model._target_=traced_models.Single"]) == 2
    err = capsys.readouterr().err
    assert "Single fails on inputs of shape (5, 4): RuntimeError: " in err
    assert "; trace computes in float64, so tensors that forward makes need dtype=x.dtype\n" in err


def test_a_flag_with_a_bad_value(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--steps 0", "--steps x", "--part 11"):
        with pytest.raises(SystemExit) as stopped:
            main(flag.split())
        assert stopped.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


def test_the_chosen_parts_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--part", "3", "--part", "6", "--steps", "1", "clip_norm=0.5"]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^\d  [A-Z ]+", said, re.MULTILINE) == ["3  THE GRAPH ", "6  AFTER THE STEP"]
    assert "clip_norm=0.5 multiplies every entry by min(1, 0.5 / (norm + 1e-6)) = 0.48" in said


@pytest.mark.slow
def test_a_large_network_is_no_wall_of_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["data=digits", "model.depth=1", "model.width=256", "model.dropout=0.2", "model.batchnorm=true"]
    assert main([*config, "--steps", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 180
    assert max(map(len, lines)) < 160
    assert all(len(re.findall(r"\d\.\d", line)) <= 16 for line in lines)
