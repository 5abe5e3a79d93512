"""Checks before training: what is wrong with the data, and on request: does the network fit one batch, and does
backward compute forward's derivative?

They work on stacks of their own, made from the same configurations: the run itself is not touched.
"""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from trainer.config import Cnn, Config, ConfigError, Mlp, NamedSchedule, Surface
from trainer.core import global_streams, losses
from trainer.core.data import Dataset
from trainer.core.finite_differences import TOLERANCE, check_gradients
from trainer.core.loop import Stack, check_functions, train_step
from trainer.judge import data
from trainer.judge.health import Finding

ONE_BATCH_STEPS = 500
FITTED = 0.1  # of the chance-level loss of this batch
GRADIENT_EXAMPLES = 16


def check(stack: Stack) -> list[list[Finding]]:
    """Run the checks of the data, and those that members' configurations ask for; return what they found of each.

    Raises ConfigError where a network cannot be checked: in float64 it fails, or its loss is not the same twice; and
    where a loss or metric of the user's own is not what it must be.
    """
    check_functions(stack)
    found = [] if isinstance(stack.members[0].config.model, Surface) else data.judge(stack.dataset.facts)
    findings: list[list[Finding]] = [[*found] for _ in stack.members]
    members = [member for member in stack.members if member.config.check.one_batch]
    with global_streams.kept(stack.device):  # a module of the user's own draws from them
        if members:
            for member, finding in zip(members, one_batch([m.config for m in members], stack.dataset), strict=True):
                findings[member.index] += [finding] if finding else []
        for member in stack.members:
            if member.config.check.gradients:
                findings[member.index] += wrong_gradients(member.config, stack.dataset)
    return findings


def one_batch(configs: list[Config], dataset: Dataset) -> list[Finding | None]:
    """Whether each run's optimizer brings its first batch near to no loss, dropout and schedule out of the way.

    Raises ConfigError for a loss of the user's own that has no value to come near to.
    """
    stack = Stack([_undisturbed(config) for config in configs], dataset)
    rows_KN, target_KN = stack.next_order()
    batch = stack.batches[0]
    target_KB = target_KN[:, batch]
    chance_K = losses.chance_level(stack.loss, target_KB, stack.classes)["guessing_loss"]
    if bool(chance_K.isnan().any()):
        why = "has no lowest value near 0, so nothing says when a batch is fitted; leave the check out"
        raise ConfigError([f"check.one_batch: {stack.loss._target_} {why}"])
    floor = _smoothing_floor(configs[0], stack)
    lowest_K = torch.full((len(configs),), torch.inf)
    for _ in range(ONE_BATCH_STEPS):
        measured_MK = train_step(stack, rows_KN, target_KN, [batch], measure=True)
        lowest_K = torch.fmin(lowest_K, measured_MK[0].cpu() - floor)
        if (lowest_K <= FITTED * chance_K.cpu()).all():
            break
    out: list[Finding | None] = []
    for lowest, chance in zip(lowest_K.tolist(), chance_K.tolist(), strict=True):
        said = (
            f"in {ONE_BATCH_STEPS} steps on a batch of {target_KB.shape[1]} examples the loss was never below "
            f"{lowest:.3g}; guessing costs {chance:.3g}"
        )
        evidence = {"lowest_loss": lowest, "guessing": chance, "steps": ONE_BATCH_STEPS}
        failed = not lowest <= FITTED * chance and chance > 0
        out.append(Finding("one_batch", "first batch", 0, said, evidence) if failed else None)
    return out


def wrong_gradients(config: Config, dataset: Dataset) -> list[Finding]:
    """The parameters whose gradient disagrees with differences of the loss, in float64, in training mode."""
    x, y = dataset.x.cpu(), dataset.y.cpu()
    precise = dataclasses.replace(
        dataset, x=x.double(), y=y.double() if y.dtype.is_floating_point else y, test_x=x[:0], test_y=y[:0]
    )
    stack = Stack([_undisturbed(config)], precise)
    rows_KB = stack.train_KN[:, :GRADIENT_EXAMPLES]
    x_KBI, target_KB = stack.gather(rows_KB), stack.train_y_KN[:, :GRADIENT_EXAMPLES]

    def losses_B() -> Tensor:
        global_streams.seed(0)  # the same dropout in a module of the user's own
        return stack.losses_KB(stack.model(x_KBI), target_KB)[0] / target_KB.shape[1]

    try:
        checks = check_gradients(losses_B, stack.parameters)
    except ValueError as error:
        raise ConfigError([f"check.gradients: {error}"]) from error
    return [
        Finding(
            "wrong_gradient",
            name,
            0,
            f"at {name}[{', '.join(map(str, found.worst[1:]))}] backward says {found.gradient:.6g}, "
            f"differences of the loss {found.difference:.6g}",
            {"error": found.error, "tolerance": TOLERANCE},
        )
        for name, found in checks.items()
        if not found.ok and not found.kink
    ]


def _undisturbed(config: Config) -> Config:
    """The configuration without what keeps a network from fitting, or makes its loss another at each call."""
    model = config.model
    if isinstance(model, Mlp):
        model = dataclasses.replace(model, dropout=0.0, input_dropout=0.0)
    elif isinstance(model, Cnn):
        model = dataclasses.replace(model, dropout=0.0)
    schedule = NamedSchedule(name="constant", warmup=0.0)
    return dataclasses.replace(config, model=model, schedule=schedule)


@functools.cache
def _entropy(share: float, classes: int) -> float:
    q = torch.full((classes,), share / classes, dtype=torch.float64)
    q[0] += 1 - share
    return torch.special.entr(q).sum().item()


def _smoothing_floor(config: Config, stack: Stack) -> float:
    """The lowest cross-entropy that smoothed labels allow: their entropy."""
    return _entropy(config.loss.label_smoothing, stack.classes) if stack.classes else 0.0
