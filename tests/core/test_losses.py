"""What is measured against slow loops, finite differences and torch's own clipping, in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from tests.helpers import make_config, run, small_data
from trainer.config import Loss
from trainer.core import gradients, losses
from trainer.core.loop import train_step
from trainer.core.networks import plain
from trainer.core.stack import Stack

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # sums of at most a few hundred terms


def loss_of(**values: Any) -> Loss:
    return make_config(**{f"loss.{key}": value for key, value in values.items()}).loss


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_is_the_equation(smoothing: float) -> None:
    """-sum_c q_c log p_c with q = (1 - s) onehot + s / C, one example at a time."""
    output, target = draw(2, 5, 4), torch.tensor([[0, 1, 2, 3, 3], [3, 3, 0, 1, 2]])
    got = losses.losses_KB(loss_of(label_smoothing=smoothing), output, target)
    for k in range(2):
        for b in range(5):
            e = [math.exp(v) for v in output[k, b].tolist()]
            q = [smoothing / 4 + (1 - smoothing) * (c == int(target[k, b])) for c in range(4)]
            want = -sum(q[c] * math.log(e[c] / sum(e)) for c in range(4))
            assert got[k, b].item() == pytest.approx(want, rel=1e-12)


def test_mean_squared_error_of_values_and_of_one_hot_classes() -> None:
    output = draw(2, 3, 4)
    values = draw(2, 3, 4) / 2
    for name in ("auto", "mse"):
        got = losses.losses_KB(loss_of(name=name), output, values)
        for k in range(2):
            for b in range(3):
                want = sum((o - v) ** 2 for o, v in zip(output[k, b].tolist(), values[k, b].tolist(), strict=True)) / 4
                assert got[k, b].item() == pytest.approx(want, rel=1e-12)
    classes = torch.tensor([[0, 3, 1], [2, 2, 0]])
    one_hot = torch.zeros(2, 3, 4, dtype=torch.float64)
    for k in range(2):
        for b in range(3):
            one_hot[k, b, classes[k, b]] = 1
    got = losses.losses_KB(loss_of(name="mse"), output, classes)
    torch.testing.assert_close(got, (output - one_hot).square().mean(2), **EXACT)


@pytest.mark.parametrize("delta", [None, 0.3, 5.0])
def test_huber_is_quadratic_then_linear(delta: float | None) -> None:
    output, values = draw(2, 3, 4), draw(2, 3, 4) / 2
    got, d = losses.losses_KB(loss_of(name="huber", delta=delta), output, values), delta or 1.0
    for k in range(2):
        for b in range(3):
            errors = [abs(o - v) for o, v in zip(output[k, b].tolist(), values[k, b].tolist(), strict=True)]
            want = sum(e * e / 2 if e <= d else d * (e - d / 2) for e in errors) / 4
            assert got[k, b].item() == pytest.approx(want, rel=1e-12)
    classes = torch.tensor([[0, 3, 1], [2, 2, 0]])
    want = nn.HuberLoss(reduction="none", delta=d)(output, torch.eye(4, dtype=torch.float64)[classes]).mean(2)
    torch.testing.assert_close(losses.losses_KB(loss_of(name="huber", delta=delta), output, classes), want, **EXACT)


@pytest.mark.parametrize("classes", [2, 4])
def test_binary_cross_entropy_is_that_of_each_class_against_the_rest(classes: int) -> None:
    output, target = draw(2, 5, classes), torch.randint(classes, (2, 5), generator=torch.Generator().manual_seed(0))
    got = losses.losses_KB(loss_of(name="bce"), output, target)
    for k in range(2):
        for b in range(5):
            p = [1 / (1 + math.exp(-v)) for v in output[k, b].tolist()]
            want = -sum(math.log(p[c] if c == int(target[k, b]) else 1 - p[c]) for c in range(classes)) / classes
            assert got[k, b].item() == pytest.approx(want, rel=1e-12)
    torch.testing.assert_close(losses.losses_KB(loss_of(name="bce"), output[0], target[0]), got[0], **EXACT)


def test_focal_loss_is_the_papers() -> None:
    """Lin et al. 2017: at gamma = 2 an example with p = 0.9 costs 100 times less, with p = 0.968 about 1000 times."""
    for p, times, tolerance in ((0.9, 100, 1e-9), (0.968, 1000, 0.03)):
        output, target = torch.tensor([[[math.log(p / (1 - p)), 0.0]]], dtype=torch.float64), torch.tensor([[0]])
        ratio = losses.losses_KB(loss_of(), output, target) / losses.losses_KB(loss_of(name="focal"), output, target)
        assert ratio.item() == pytest.approx(times, rel=tolerance)
    output, target = draw(2, 5, 4), torch.tensor([[0, 1, 2, 3, 3], [3, 3, 0, 1, 2]])
    for gamma in (0.0, 0.5, 3.0):
        got = losses.losses_KB(loss_of(name="focal", gamma=gamma), output, target)
        p = output.softmax(2).gather(2, target[:, :, None])[:, :, 0]
        torch.testing.assert_close(got, -((1 - p) ** gamma) * p.log(), rtol=1e-10, atol=1e-12)  # 1 - p cancels


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_of_what_is_certain_has_a_gradient_of_zero(gamma: float) -> None:
    output = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    loss = losses.losses_KB(loss_of(name="focal", gamma=gamma), output, torch.tensor([0]))
    loss.sum().backward()
    assert output.grad is not None
    assert (loss.item(), output.grad.tolist()) == (0, [[0, 0, 0]])


# ------------------------------------------------------------------ chance level


def constant_of(loss: Loss, classes: int | None, target: Tensor) -> float:
    """The lowest mean loss of one prediction for all, by SciPy's simplex search, which takes no derivative."""
    cost, outputs = losses.function(loss), classes or target.shape[1]

    def mean(constant: np.ndarray) -> float:
        return cost(torch.from_numpy(constant).expand(len(target), -1), target).mean().item()

    options = {"xatol": 1e-9, "fatol": 1e-13, "maxfev": 20_000, "maxiter": 20_000}
    return min(
        minimize(mean, np.random.default_rng(s).normal(size=outputs), method="Nelder-Mead", options=options).fun
        for s in range(3)
    )


@pytest.mark.parametrize(
    "values",
    [
        *({"name": name} for name in ("huber", "focal", "bce")),
        {"name": "focal", "gamma": 0.5},
        {"name": "focal", "gamma": 5.0},
        {"name": "huber", "delta": 0.1},
        {"_target_": "tests.own_functions.entropy"},
    ],
    ids=str,
)
def test_the_cost_of_guessing_classes_is_that_of_the_best_constant(values: dict[str, Any]) -> None:
    loss, target = loss_of(**values), torch.tensor([[0, 0, 0, 1, 1, 2], [2, 1, 2, 0, 2, 2]])
    found = losses.chance_level(loss, target, 3)
    zeros = losses.function(loss)(torch.zeros(2, 6, 3, dtype=torch.float64), target).mean(1)
    torch.testing.assert_close(found["expected_loss"], zeros, **EXACT)
    for k in range(2):
        assert found["guessing_loss"][k].item() == pytest.approx(constant_of(loss, 3, target[k]), rel=1e-6)
    assert found["target_top_class"].tolist() == [3 / 6, 4 / 6]


def test_a_class_that_never_occurs_costs_nothing_to_guess() -> None:
    target = torch.tensor([[0, 0, 1, 1]])
    for name in ("focal", "bce", "huber"):
        with_it = losses.chance_level(loss_of(name=name), target, 3)["guessing_loss"]
        without = losses.chance_level(loss_of(name=name), target, 2)["guessing_loss"]
        share = {"focal": 1}.get(name, 2 / 3)  # the others are means over outputs
        assert with_it.item() == pytest.approx(share * without.item(), rel=1e-5)


@pytest.mark.parametrize("delta", [0.1, 1.0, 50.0])
def test_the_cost_of_guessing_values_by_hubers_loss(delta: float) -> None:
    values = draw(2, 9, 2).abs() ** 2
    loss = loss_of(name="huber", delta=delta)
    found = losses.chance_level(loss, values, None)
    assert found["expected_loss"].tolist() == pytest.approx(
        losses.losses_KB(loss, torch.zeros_like(values), values).mean(1).tolist()
    )
    for k in range(2):
        assert found["guessing_loss"][k].item() == pytest.approx(constant_of(loss, None, values[k]), rel=1e-6)
    if delta == 50:  # nothing is further away: half the variance
        assert found["guessing_loss"].tolist() == pytest.approx((values.var(1, correction=0).mean(1) / 2).tolist())


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_the_best_guess_by_the_pinball_loss_is_the_quantile(q: float) -> None:
    """Koenker and Bassett 1978; of 11 values 0.1, 0.5 and 0.9 are the second, sixth and tenth."""
    values = draw(1, 11, 2)
    loss = make_config(**{"loss._target_": "tests.own_functions.pinball", "loss.q": q}).loss
    best = values[0].quantile(q, 0)
    want = torch.where(values > best, q * (values - best), (1 - q) * (best - values)).mean().item()
    assert losses.chance_level(loss, values, None)["guessing_loss"].item() == pytest.approx(want, rel=1e-4)


def test_the_best_guess_of_classes_by_a_loss_with_edges() -> None:
    """Hinge loss of each class against the rest: the guess is -1, or 1 for a class of more than half."""
    loss, target = loss_of(_target_="tests.own_functions.hinge"), torch.tensor([[0, 0, 0, 0, 1, 2]])
    assert losses.chance_level(loss, target, 3)["guessing_loss"].item() == pytest.approx(
        2 * (2 / 6 + 1 / 6 + 1 / 6) / 3, rel=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unbounded", "shifted"])
def test_a_loss_whose_lowest_value_is_not_zero_has_no_chance_level(name: str) -> None:
    loss = loss_of(_target_=f"tests.own_functions.{name}")
    assert losses.chance_level(loss, torch.tensor([[0, 0, 1, 2]]), 3)["guessing_loss"].isnan().all()
    log = run([make_config(epochs=1, **{"loss._target_": loss._target_, "data.train_size": 100})], small_data())
    assert "guessing_loss" not in log.starts[0]
    assert "expected_loss" in log.starts[0]


def test_a_members_chance_level_is_its_own_whoever_trains_beside_it() -> None:
    """One class in the targets is guessed at no cost, which is no measure of a loss whose floor is not known."""
    loss, target = loss_of(_target_="tests.own_functions.entropy"), torch.tensor([[0, 0, 1, 2], [1, 1, 1, 1]])
    both = losses.chance_level(loss, target, 3)["guessing_loss"].tolist()
    for k in range(2):
        (alone,) = losses.chance_level(loss, target[k : k + 1], 3)["guessing_loss"].tolist()
        assert both[k] == pytest.approx(alone, nan_ok=True, rel=1e-12)
    assert math.isfinite(both[0])


def test_correct_is_the_largest_output() -> None:
    output, target = draw(2, 50, 4), torch.randint(4, (2, 50), generator=torch.Generator().manual_seed(0))
    want = [[max(range(4), key=lambda c: output[k, b, c]) == target[k, b] for b in range(50)] for k in range(2)]
    assert losses.correct_KB(output, target).tolist() == want


# ------------------------------------------------------------------ gradient norms


def one_step(*choices: str, **values: Any) -> tuple[Stack, dict[str, Tensor], Tensor, Tensor]:
    """A stack after one measured step (learning rate 0, unless said); tag -> (K,); its rows and targets."""
    shared = {"model.width": 4, "data.batch_size": 7, "data.train_size": 7, "optimizer.lr": 0.0} | values
    configs = [make_config("optimizer=sgd", *choices, **{"seed": s}, **shared) for s in (0, 1)]
    stack = Stack(configs, small_data("line" if "data=line" in choices else "spirals"))
    rows, target = stack.next_order()
    measured = train_step(stack, rows, target, stack.batches, measure=True)
    assert measured is not None
    return stack, dict(zip(stack.step_tags, measured, strict=True)), rows, target


@pytest.mark.parametrize(
    ("choices", "values"),
    [
        (("data=spirals",), {"model.activation": "tanh"}),
        (("data=spirals",), {"model.activation": "gelu", "model.batchnorm": True, "loss.label_smoothing": 0.1}),
        (("data=spirals",), {"model.activation": "sigmoid", "loss.name": "mse"}),
        (("data=line",), {"model.depth": 1, "model.activation": "silu"}),
    ],
)
def test_gradient_norms_against_finite_differences(choices: tuple[str, ...], values: dict[str, Any]) -> None:
    """Central differences with h = 1e-5: the error is h^2 times a third derivative, and 1e-16 / h: about 1e-9."""
    h = 1e-5
    stack, measured, rows, target = one_step(*choices, **values)

    @torch.no_grad()
    def loss_K() -> Tensor:
        return losses.losses_KB(stack.loss, stack.model(stack.gather(rows)), target).mean(1)

    torch.testing.assert_close(measured["train/loss"], loss_K(), **EXACT)
    squares = torch.zeros(2, dtype=torch.float64)
    for name, parameter in stack.parameters.items():
        flat = parameter.detach().view(2, -1)
        slopes = torch.empty_like(flat)
        for i in range(flat.shape[1]):
            original = flat[:, i].clone()
            flat[:, i] = original + h
            above = loss_K()
            flat[:, i] = original - h
            slopes[:, i] = (above - loss_K()) / (2 * h)
            flat[:, i] = original
        norm = slopes.square().sum(1).sqrt()
        torch.testing.assert_close(measured[f"grad_norm/{name}"], norm, rtol=1e-6, atol=1e-8)
        squares += norm.square()
    torch.testing.assert_close(measured["grad_norm/total"], squares.sqrt(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("clip", [1e-3, 0.05, 1e6])
def test_norms_and_clipping_against_plain_modules(clip: float) -> None:
    """Per-parameter .grad of each member's plain model, and torch.nn.utils.clip_grad_norm_ on them."""
    stack, measured, rows, target = one_step("data=spirals", **{"clip_norm": clip, "optimizer.lr": 0.5})
    before = Stack([m.config for m in stack.members], stack.dataset)
    for k, member in enumerate(stack.members):
        network = plain(member.config.model, 2, 3, ()).double()
        network.load_state_dict(before.model.member_state(k))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
        loss = nn.functional.cross_entropy(network(stack.dataset.x[rows[k]]), target[k])
        loss.backward()
        for name, parameter in network.named_parameters():
            assert measured[f"grad_norm/{name}"][k].item() == pytest.approx(parameter.grad.norm().item(), rel=1e-12)
        total = torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
        clipped = torch.stack([p.grad.norm() for p in network.parameters()]).norm()
        assert measured["grad_norm/total"][k].item() == pytest.approx(total.item(), rel=1e-12)
        assert measured["grad_norm/clipped_total"][k].item() == pytest.approx(clipped.item(), rel=1e-12)
        assert clipped <= clip
        optimizer.step()
        torch.testing.assert_close(stack.model.member_state(k), dict(network.state_dict()), **EXACT)


def test_norms_of_what_is_not_finite_or_not_there() -> None:
    tensors = [torch.tensor([[3.0, 4.0], [math.inf, 1.0], [math.nan, 1.0]]), None, torch.tensor([12.0, 0.0, 0.0])]
    found = gradients.norms_PK(tensors, 3)
    assert str(found.tolist()) == "[[5.0, inf, nan], [0.0, 0.0, 0.0], [12.0, 0.0, 0.0]]"
    assert str(gradients.total_norm_K(found).tolist()) == "[13.0, inf, nan]"


def test_clip_factor_of_what_is_not_finite() -> None:
    """As torch's: an infinite norm shortens to nothing, NaN stays; no limit leaves every gradient as it is."""
    total = torch.tensor([math.inf, math.nan, math.inf, math.nan, 0.0], dtype=torch.float64)
    limit = torch.tensor([1.0, 1.0, math.inf, math.inf, 1.0], dtype=torch.float64)
    assert str(gradients.clip_factor_K(total, limit).tolist()) == "[0.0, nan, 1.0, 1.0, 1.0]"


def test_one_members_nan_stays_its_own() -> None:
    output = torch.stack([torch.full((3, 4), math.nan), torch.ones(3, 4)]).requires_grad_()
    loss = losses.losses_KB(loss_of(), output, torch.zeros(2, 3, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(loss.sum(), [output])
    assert loss[0].isnan().all()
    assert loss[1].isfinite().all()
    assert gradient[1].isfinite().all()
    assert losses.correct_KB(output, torch.zeros(2, 3, dtype=torch.int64))[1].all()
