"""Problems of a configuration that no single value shows."""

from __future__ import annotations

import typing
from dataclasses import fields

from trainer.config.data import EmnistSplit, Generated, TorchvisionData
from trainer.config.model import Cnn, Function, Mlp, Surface
from trainer.config.optimizer import SCHEDULE_KEYS, CustomSchedule, TorchOptimizer
from trainer.config.schema import OF_CLASSES, Config, Loss, MetricName
from trainer.config.words import nearest, show


def contradictions(config: Config) -> list[str]:
    """Problems that no single value shows."""
    problems = []
    model, optimizer = config.model, config.optimizer
    if isinstance(model, Mlp) and isinstance(model.width, list) and len(model.width) != model.depth:
        problems.append(
            f"model.width: found {len(model.width)} widths for model.depth={model.depth} hidden layers, "
            f"expected one a layer; try model.depth={len(model.width)}, or one number for all"
        )
    if isinstance(model, Cnn):
        if isinstance(model.channels, list) and len(model.channels) != model.depth:
            problems.append(
                f"model.channels: found {len(model.channels)} numbers for model.depth={model.depth} convolutions, "
                f"expected one a layer; try model.depth={len(model.channels)}, or one number for all"
            )
        if model.kernel % 2 == 0:
            problems.append(f"model.kernel: found {model.kernel}, expected an odd number; try {model.kernel + 1}")
    problems += _of_schedule(config)
    data = config.data
    if isinstance(data, TorchvisionData) and (data.dataset == "EMNIST") != (data.split is not None):
        known = ", ".join(typing.get_args(EmnistSplit))
        problems.append(f"data.dataset: EMNIST, and no other set, has splits; say data.split=NAME, one of {known}")
    if isinstance(model, Surface):
        if config.data.name != "point" or config.loss.name != "output":
            problems.append(
                f"model: {model.function} is a function to minimise, which has data=point and loss.name=output; "
                f"found {config.data.name} and {config.loss.name}; leave both to problem="
                f"{'custom' if model.is_own else model.function}"
            )
        if not model.is_own and model.function not in (known := typing.get_args(Function)):
            problems.append(
                f"model.function: found {model.function}, expected one of {', '.join(known)}, or one of your own as "
                "module.function, e.g. my.f"
            )
        elif len(model.start) != 2 and not (model.is_own and model.start):
            wanted = "one for each coordinate" if model.is_own else "two"
            problems.append(f"model.start: found {len(model.start)} numbers, expected {wanted}, e.g. [-1.5,2]")
    elif config.data.name == "point" or config.loss.name == "output":
        problems.append(
            "model: data=point and loss.name=output are for functions to minimise; choose one with problem=NAME, or "
            "another data set and loss.name=auto"
        )
    problems += task_problems(config, bool(config.data.is_regression))
    problems += _loss_contradictions(config) + _metric_contradictions(config)
    stops = config.early_stopping.patience is not None or config.early_stopping.monitor == "verdict"
    if stops and config.data.val_fraction == 0:
        problems.append(
            "early_stopping.patience: data.val_fraction=0 leaves nothing to monitor; "
            "try early_stopping.patience=null, or data.val_fraction=0.1"
        )
    betas = optimizer.betas if isinstance(optimizer, TorchOptimizer) else None
    if betas is not None and len(betas) != 2:
        problems.append(f"optimizer.betas: found {len(betas)} numbers, expected two, e.g. [0.9,0.999]")
    return problems


def _of_schedule(config: Config) -> list[str]:
    """What a schedule lacks, or has beside what it wants; what cannot go with it."""
    schedule = config.schedule
    if isinstance(schedule, CustomSchedule):
        return []
    problems = []
    name, wanted = schedule.name, SCHEDULE_KEYS.get(schedule.name, ())
    by_name = {f.name: f for f in fields(schedule)}
    given = [key for keys in SCHEDULE_KEYS.values() for key in keys if getattr(schedule, key) is not None]
    if missing := [key for key in wanted if key not in given]:
        units = {key: by_name[key].metadata["unit"] for key in missing}
        keys = " and ".join(f"{key} ({unit})" if unit else key for key, unit in units.items())
        problems.append(f"schedule: {name} wants {keys}; try schedule={name}")
    for key in dict.fromkeys(given):
        if key not in wanted:
            owners = " or ".join(f"schedule={other}" for other, keys in SCHEDULE_KEYS.items() if key in keys)
            problems.append(f"schedule.{key}: {name} has no such key; choose {owners}")
    if name == "one_cycle" and schedule.warmup:
        problems.append("schedule.warmup: one_cycle rises by itself; set it to 0, and see schedule.pct_start")
    if name == "plateau" and config.data.val_fraction == 0:
        problems.append(
            "schedule: plateau follows val/loss, and data.val_fraction=0 leaves none; try data.val_fraction=0.1"
        )
    return problems


def task_problems(config: Config, is_regression: bool) -> list[str]:
    """Problems of a configuration with what its data are: values, where a regression, or classes."""
    problems = []
    data = config.data
    if is_regression:
        if data.label_noise:
            instead = " and use data.noise" if isinstance(data, Generated) else ""
            problems.append(f"data.label_noise: a regression has no labels to redraw; set it to 0{instead}")
        if config.loss.name in OF_CLASSES:
            what = data.name if isinstance(data, Generated) else f"{data.name} ({data.title})"
            problems.append(
                f"loss.name: {config.loss.name} wants classes, and data={what} is a regression; try loss.name=mse"
            )
        if config.early_stopping.monitor == "val/accuracy":
            problems.append("early_stopping.monitor: a regression has no accuracy; try early_stopping.monitor=val/loss")
    if config.loss.label_smoothing and is_regression and config.loss.name in ("auto", "cross_entropy"):
        problems.append("loss.label_smoothing: only cross-entropy can be smoothed; set it to 0")
    return problems


def _loss_contradictions(config: Config) -> list[str]:
    loss, problems = config.loss, []
    is_own = loss._target_ is not None
    if is_own and loss.name != "auto":
        problems.append(f"loss._target_: stands beside loss.name={loss.name}; leave out one of them")
    for key, owner in (("delta", "huber"), ("gamma", "focal")):
        if getattr(loss, key) is not None and not is_own and loss.name != owner:
            problems.append(f"loss.{key}: {loss.name} has none; choose loss.name={owner}, or leave it out")
    if not is_own:
        known = [f.name for f in fields(Loss) if not f.metadata.get("rest")]
        problems += [f"loss.{key}: no such key; {nearest(key, known)}" for key in loss.arguments]
    if loss.label_smoothing and (is_own or loss.name not in ("auto", "cross_entropy")):
        problems.append("loss.label_smoothing: only cross-entropy can be smoothed; set it to 0")
    return problems


TAKEN = ("loss", "accuracy", "confusion", "per_class")  # names that other numbers of a run have


def _metric_contradictions(config: Config) -> list[str]:
    known = typing.get_args(MetricName)
    problems = []
    if config.metrics and isinstance(config.model, Surface):
        problems.append("metrics: a function to minimise has none; leave them out")
    for name in config.metrics:
        if "." not in name and name not in known:
            own = "a function of your own is written with its module, my_metrics.f"
            problems.append(f"metrics: found {show(name)}; {nearest(name, known)}; {own}")
    short = [name.rpartition(".")[2] for name in config.metrics]
    for name in sorted({name for name in short if short.count(name) > 1}):
        problems.append(f"metrics: {name} stands there {short.count(name)} times; give each a name of its own")
    for name in short:
        if name in TAKEN or name.startswith("last_"):
            problems.append(f"metrics: {name} is a name that other numbers of a run have; give your function another")
    return problems
