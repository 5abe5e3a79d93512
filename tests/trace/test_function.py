"""A trace of functions: each operation and derivative against torch.autograd.functional, formulas and differences."""

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.functional import hessian, jacobian

from tests.helpers import make_config, strict
from trainer.trace import facts, function
from trainer.trace.__main__ import main

pytestmark = pytest.mark.slow

EXACT = 1e-12
POINTS: dict[str, list[list[float]]] = {
    "squared_sine": [[2.0], [0.0], [-1.3]],
    "mixed": [[1.5, 0.5, 2.0], [-0.7, 0.2, -1.1]],
    "cosines": [[0.3, -1.0, 2.0, 0.5], [1.0]],
    "doubled": [[2.0], [-3.0], [1.7]],
    "linear": [[1.0, 2.0]],
    "harmless": [[0.4]],
    "filled": [[2.0, 3.0]],
    "right": [[0.9]],
    "long": [[0.5]],
}
CASES = [(name, point) for name, points in POINTS.items() for point in points]


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    shutil.copy(Path(__file__).with_name("traced.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "traced", raising=False)
    import traced  # type: ignore[import-not-found]

    return traced


def look(name: str, point: list[float]) -> facts.Function:
    values = {"model.function": f"traced.{name}" if name != "beale" else name, "model.start": point}
    return function.look(make_config("problem=custom", **values).model)  # type: ignore[arg-type]


def named(found: facts.Function) -> dict[str, facts.Operation]:
    return {one.name: one for one in found.operations if one.name}


# ------------------------------------------------------------------ derivatives


@pytest.mark.parametrize("x", [2.0, 0.3, -1.1])
def test_every_number_of_a_squared_sine(x: float) -> None:
    found = look("squared_sine", [x])
    first, second = found.operations
    assert (first.expression, second.expression) == ("sin(x)", "v1 ** 2")
    assert (first.grad_fn, second.grad_fn) == ("SinBackward0", "PowBackward0")
    assert (first.value, second.value) == pytest.approx((math.sin(x), math.sin(x) ** 2), abs=EXACT)
    assert first.terms["x"].own == pytest.approx(math.cos(x), abs=EXACT)
    assert second.terms["v1"].own == pytest.approx(2 * math.sin(x), abs=EXACT)
    assert (second.gradient, first.gradient) == pytest.approx((1, 2 * math.sin(x)), abs=EXACT)
    slope = 2 * math.sin(x) * math.cos(x)
    assert first.terms["x"].part == pytest.approx(slope, abs=EXACT)
    assert found.chain_rule == pytest.approx([slope], abs=EXACT)
    (gradient,), (curvature,) = found.gradient, found.second
    assert gradient.slopes == pytest.approx([slope], abs=EXACT)
    assert gradient.check.difference == pytest.approx(slope, abs=1e-9)
    assert curvature.slopes == pytest.approx([2 * math.cos(2 * x)], abs=EXACT)
    assert curvature.check.difference == pytest.approx(2 * math.cos(2 * x), abs=1e-9)
    assert [(one.operation, one.what) for one in found.kept] == [("v1: SinBackward0", "x"), ("v2: PowBackward0", "v1")]


@pytest.mark.parametrize(("name", "point"), CASES)
def test_gradient_chain_rule_and_hessian_are_autograds(name: str, point: list[float], own: Any) -> None:
    found = look(name, point)
    inputs = tuple(torch.tensor(x, dtype=torch.float64) for x in point)
    call = getattr(own, name)
    gradient = [slope.item() for slope in jacobian(call, inputs)]
    assert found.failure is None
    assert found.gradient[0].slopes == pytest.approx(gradient, rel=1e-9, abs=EXACT)
    assert found.gradient[0].check.ok
    assert found.gradient[0].check.checked == len(point)
    assert found.chain_rule == pytest.approx(gradient, rel=1e-9, abs=EXACT)
    assert found.faults == []
    rows = [[entry.item() for entry in row] for row in hessian(call, inputs)]
    for one, row in zip(found.second, rows, strict=True):
        assert one.slopes == pytest.approx(row, rel=1e-9, abs=EXACT)
        assert one.check.ok
    assert found.doubled


def test_the_users_gradient_is_the_same_as_what_training_steps_by(capsys: pytest.CaptureFixture[str]) -> None:
    line = "problem=custom model.function=traced.squared_sine model.start=[2.0] optimizer=sgd --json - --steps 1"
    assert main(line.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["step"]["gradient"] == pytest.approx(found["function"]["chain_rule"][0], abs=EXACT)
    assert found["step"]["gradient"] == pytest.approx(math.sin(4.0), abs=EXACT)


def test_a_problem_of_ours_is_a_function_too() -> None:
    found = function.look(make_config("problem=rosenbrock").model)  # type: ignore[arg-type]
    x, y = -1.5, 2.0
    assert found.chain_rule == pytest.approx([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])
    rows = [[2 - 400 * y + 1200 * x * x, -400 * x], [-400 * x, 200.0]]
    assert [one.slopes for one in found.second] == [pytest.approx(row) for row in rows]


def test_a_vector_has_a_jacobian(own: Any) -> None:
    found = look("vector", [2.0, 3.0])
    inputs = tuple(torch.tensor(x, dtype=torch.float64) for x in (2.0, 3.0))
    expected = torch.stack(jacobian(own.vector, inputs), 1)
    assert torch.tensor([one.slopes for one in found.gradient]).double() == pytest.approx(expected, abs=1e-6)
    assert [one.slopes for one in found.gradient] == [[3, 2], [pytest.approx(math.cos(2)), 0], [4, 27]]
    assert all(one.check.ok for one in found.gradient)
    assert found.summed == pytest.approx(expected.sum(0).tolist(), abs=EXACT)
    assert found.refused == "grad can be implicitly created only for scalar outputs"
    assert not found.is_loss


# ------------------------------------------------------------------ branches


def test_the_graph_holds_what_ran(capsys: pytest.CaptureFixture[str]) -> None:
    found = look("doubled", [2.0])
    asked = [(one.expression, one.value) for one in found.operations if one.kind == "branch"]
    assert [value for _, value in asked] == [True] * 6 + [False, True]  # 2, 4, ..., 64 and 128 < 100; 128 > 120
    assert asked[0] == ("v1 < 100", True)
    assert sum(one.expression.endswith(" * 2") for one in found.operations) == 6
    assert found.gradient[0].slopes == [64]
    assert look("doubled", [1.7]).gradient[0].slopes == [pytest.approx(2 * 1.7 * 64 * 64)]  # 108.8: squared
    assert main(["problem=custom", "model.function=traced.doubled", "model.start=[2.0]", "--part", "8"]) == 0
    assert "A value decided 8 times which branch runs" in capsys.readouterr().out


def test_a_kink_is_no_fault() -> None:
    found = look("corner", [0.0])
    assert found.gradient[0].check.ok  # 0 lies between the slopes on both sides
    assert found.second[0].check.kink  # the gradient jumps
    assert found.faults == []


def test_of_many_operations_the_first_and_last_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(look("long", [0.5]).operations) == 300
    assert (
        main(["problem=custom", "model.function=traced.long", "model.start=[0.5]", "--part", "8", "--part", "10"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 110
    assert any(line.startswith("v300  v297 + v299") for line in lines)


# ------------------------------------------------------------------ what backward does not see


@pytest.mark.parametrize(
    ("name", "said", "gradient"),
    [
        ("cut", "v2 = detach(v1)", 4.0),
        ("data", "v1 = x.data", 2.0),
        ("no_grad", "v1 = x * x", 4.0),
        ("python", "float(x)", math.exp(2)),
    ],
)
def test_what_is_cut_off_is_named(name: str, said: str, gradient: float, capsys: pytest.CaptureFixture[str]) -> None:
    found = look(name, [2.0])
    assert found.gradient[0].slopes == pytest.approx([gradient])
    assert found.chain_rule == pytest.approx([gradient])
    (fault,) = found.faults
    assert fault.startswith(f"the derivative of f by x is {gradient:.6g} by backward, ")
    assert fault.endswith(f" by differences; for backward it is a constant: {said}")
    true = {"cut": 12.0, "data": 4.0, "no_grad": 12.0, "python": 3 * math.exp(2)}[name]
    assert found.gradient[0].check.difference == pytest.approx(true, rel=1e-8)
    assert main(f"problem=custom model.function=traced.{name} model.start=[2.0] --part 8".split()) == 1
    assert f"WRONG GRADIENT: {fault}" in capsys.readouterr().out


def test_nothing_leads_back_from_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["problem=custom", "model.function=traced.no_way", "model.start=[2.0]"]) == 1
    out = capsys.readouterr().out
    assert "v2  detach(v1)" in out
    assert "There is no way back: what comes out has no grad_fn" in out
    assert "9  MORE" not in out


# ------------------------------------------------------------------ in place


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("of_a_result", ("ExpBackward0, of v1 = exp(x), keeps its result", "v2 = v1 + 1")),
        ("of_an_input", ("SinBackward0, of v2 = sin(v1), keeps its self", "v3 = v1 * 2")),
    ],
)
def test_what_was_kept_and_overwritten_is_named(name: str, ends: tuple[str, str], own: Any) -> None:
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        getattr(own, name)(torch.tensor(2.0, requires_grad=True)).backward()
    middle = " as it was at version 0; it has been overwritten since and is at version 1, by "
    assert look(name, [2.0]).failure == f"{middle.join(ends)} in place"


def test_what_is_not_kept_may_be_overwritten() -> None:
    found = named(look("harmless", [0.4]))
    assert [one.version for one in found.values()] == [0, 1, 2, 0]
    assert [one.expression for one in found.values()] == ["x * 3", "v1 + 1", "sin(v2)", "v3 ** 2"]


# ------------------------------------------------------------------ one's own backward


def test_a_wrong_backward_is_named(own: Any) -> None:
    (fault,) = look("wrong", [0.9]).faults
    assert fault.endswith("; its backward is the user's own: v4 = Wrong(v1)")
    kinds = {one.expression: one.kind for one in look("right", [0.9]).operations}
    assert [kinds[one] for one in ("Scaled(x)", "sin(v2)", "Square(v3)")] == [""] * 3
    assert [kinds[one] for one in ("x * 3", "clone(v3)", "v4 * v3")] == ["inside"] * 3


def test_a_backward_that_cannot_be_derived_or_fails() -> None:
    found = look("once", [0.9])  # torch.autograd.grad leaves that path out and says nothing; differences tell
    assert found.gradient[0].check.ok
    (fault,) = found.faults
    assert fault.startswith("the derivative of df/dx by x is ")
    assert fault.endswith("; its backward is the user's own: v4 = Once(v1)")
    found = look("with_numpy", [0.9])
    assert (found.gradient[0].slopes, found.faults) == ([pytest.approx(1.8 * math.cos(0.81))], [])
    assert found.no_second is not None
    assert found.no_second.startswith("RuntimeError: Can't call numpy() on Tensor that requires grad")
    assert (look("raises", [0.9]).failure or "").startswith("KeyError: 'nothing saved' (")


# ------------------------------------------------------------------ backward twice


def test_a_second_backward(own: Any) -> None:
    for name, kept in (("squared_sine", True), ("linear", False)):
        point = POINTS[name][0]
        inputs = [torch.tensor(x, requires_grad=True) for x in point]
        value = getattr(own, name)(*inputs)
        value.backward()
        said = None
        try:
            value.backward()
        except RuntimeError as error:
            said = str(error)
        found = look(name, point)
        assert (said is not None) == (found.again is not None) == bool(found.kept) == kept
        assert said is None or (found.again and said.startswith(found.again))
        assert found.doubled


# ------------------------------------------------------------------ the command


def test_a_vector_has_no_steps(capsys: pytest.CaptureFixture[str]) -> None:
    line = "problem=custom model.function=traced.vector model.start=[2.0,3.0]"
    assert main(f"{line} --json -".split()) == 0
    out, err = capsys.readouterr()
    found = strict(out)
    assert set(found) == {"function"}
    assert next(line for line in err.splitlines() if line[:2].strip().isdigit()).startswith("8  THE FUNCTION")
    assert main(f"{line} --part 5 --svg x.svg".split()) == 2
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  --part 5: parts 1 to 7 are of one number with a gradient; this has 8, 9, 10",
        "  --svg: only the graph of one number with a gradient is drawn",
    ]
    assert not Path("x.svg").exists()


def test_all_ten_parts_of_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["problem=custom", "model.function=traced.mixed", "model.start=[1.5,0.5,2]", "--steps", "1"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line[:1].isdigit() and "  " in line[:4]] == [
        str(part) for part in range(1, 11)
    ]


NUMBERS = "expected a tensor of floating-point numbers, of shape () or (M,), M > 1"
MISTAKES = {
    "drawn": "traced.drawn differs from call to call, ",
    "several": f"traced.several gives tuple, {NUMBERS}; torch.stack makes it of several, at (2, 3) (",
    "one_row": f"traced.one_row gives a tensor (1,), torch.float64, {NUMBERS}, at (2) (",
    "matrix": f"traced.matrix gives a tensor (2, 2), torch.float32, {NUMBERS}, at (2) (",
    "whole": f"traced.whole gives a tensor (), torch.int64, {NUMBERS}, at (2) (",
    "leaf": "traced.leaf fails at (2): RuntimeError: a leaf Variable that requires grad is being used in an in-place "
    "operation. (",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_in_words(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    start = "[2.0,3.0]" if name == "several" else "[2.0]"
    assert main(f"problem=custom model.function=traced.{name} model.start={start}".split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    head, line = err.splitlines()
    assert head == "trainer.trace: 1 problem; nothing was traced (python -m trainer.trace --help)"
    assert line.startswith(f"  model.function: {MISTAKES[name]}")
    assert f"{Path('traced.py').absolute()}, line " in line
