"""Checks before training: what is wrong with the data; does the network fit one batch, and does backward compute
forward's derivative? The last two on request, and unasked for a small module of the user's own.

They work on stacks of their own, made from the same configurations: the run itself is not touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from trainer.config import Cnn, Config, ConfigError, CustomModel, Mlp, NamedSchedule, Surface
from trainer.core import global_streams, losses
from trainer.core.data import Dataset
from trainer.core.finite_differences import COORDINATES, TOLERANCE, check_gradients
from trainer.core.loop import Stack, check_functions, train_step
from trainer.judge import data
from trainer.judge.health import Finding

ONE_BATCH_STEPS = 500
FITTED = 0.1  # of the chance-level loss of this batch
HALF_FITTED = 0.5  # is enough where nobody asked
GRADIENT_EXAMPLES = 16
FEW_COORDINATES = 2  # of each tensor where nobody asked, beside the largest and the direction through all
SMALL = 40, 200_000  # tensors, and numbers in them, of a module that is checked unasked


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
        if _is_small_and_own(stack):
            findings[0] += _unasked(stack.members[0].config, stack.dataset)
    return findings


def _is_small_and_own(stack: Stack) -> bool:
    tensors, numbers = SMALL
    values = [*stack.parameters.values()]
    own = isinstance(stack.members[0].config.model, CustomModel)
    return own and len(values) <= tensors and sum(value.numel() for value in values) <= numbers


def _unasked(config: Config, dataset: Dataset) -> list[Finding]:
    """Run the checks that a configuration leaves open; one that cannot be made says nothing."""
    found: list[Finding] = []
    if config.check.one_batch is None:
        with contextlib.suppress(ConfigError):
            found += [finding for finding in one_batch([config], dataset, HALF_FITTED) if finding]
    if config.check.gradients is None:
        with contextlib.suppress(ConfigError):
            found += wrong_gradients(config, dataset, FEW_COORDINATES)
    return found


def one_batch(configs: list[Config], dataset: Dataset, fitted: float = FITTED) -> list[Finding | None]:
    """Whether each run's optimizer brings its first batch near to no loss, dropout and schedule out of the way.

    Near is a share of the chance-level loss: `fitted`.

    Raises ConfigError for a loss of the user's own that has no value to come near to.
    """
    stack = Stack([_undisturbed(config) for config in configs], dataset)
    for part in stack.model.modules():
        if isinstance(part, _DropoutNd):  # of a module of the user's own
            part.p = 0.0
    rows_KN, target_KN = stack.next_order()
    batch = stack.batches[0]
    target_KB = target_KN[:, batch]
    chance_K = losses.chance_level(stack.loss, target_KB, stack.classes)["guessing_loss"]
    if bool(chance_K.isnan().any()):
        why = "has no lowest value near 0, so nothing says when a batch is fitted; leave the check out"
        raise ConfigError([f"check.one_batch: {stack.loss._target_} {why}"])
    floor = _entropy(configs[0].loss.label_smoothing, stack.classes) if stack.classes else 0.0  # the lowest loss
    lowest_K = torch.full((len(configs),), torch.inf)
    for _ in range(ONE_BATCH_STEPS):
        measured_MK = train_step(stack, rows_KN, target_KN, [batch], measure=True)
        lowest_K = torch.fmin(lowest_K, measured_MK[0].cpu() - floor)
        if (lowest_K <= fitted * chance_K.cpu()).all():
            break
    out: list[Finding | None] = []
    for lowest, chance in zip(lowest_K.tolist(), chance_K.tolist(), strict=True):
        said = (
            f"in {ONE_BATCH_STEPS} steps on a batch of {target_KB.shape[1]} examples the loss was never below "
            f"{lowest:.3g}; guessing costs {chance:.3g}"
        )
        evidence = {"lowest_loss": lowest, "guessing": chance, "steps": ONE_BATCH_STEPS}
        failed = not lowest <= fitted * chance and chance > 0
        out.append(Finding("one_batch", "first batch", 0, said, evidence) if failed else None)
    return out


def wrong_gradients(config: Config, dataset: Dataset, coordinates: int = COORDINATES) -> list[Finding]:
    """Whether the gradient of any parameter disagrees with differences of the loss, in float64, in training mode."""
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
        checks = check_gradients(losses_B, stack.parameters, coordinates=coordinates)
    except Exception as error:  # a loss without a gradient; whatever a backward of the user's own raises
        raise ConfigError([f"check.gradients: {' '.join(str(error).split())}"]) from error
    wrong = {name: found for name, found in checks.items() if not found.ok and not found.kink}
    if not wrong:
        return []
    name, found = [*wrong.items()][-1]  # the last is nearest to the place where backward goes wrong
    said = (
        f"at {name}[{', '.join(map(str, found.worst[1:]))}] backward says {found.gradient + 0.0:.6g}, differences "
        f"of the loss {found.difference:.6g}"
    )
    evidence = {"error": found.error, "tolerance": TOLERANCE}
    return [Finding("wrong_gradient", ", ".join(wrong), 0, said, evidence)]


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
    """Of labels with a share of smoothing: the lowest cross-entropy that they allow."""
    q = torch.full((classes,), share / classes, dtype=torch.float64)
    q[0] += 1 - share
    return torch.special.entr(q).sum().item()
