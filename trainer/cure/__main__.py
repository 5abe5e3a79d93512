"""`python -m trainer.cure RUN`: what is suggested against a run's findings, tried beside it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer import files
from trainer.cli import app
from trainer.cli.batches import Batches
from trainer.cli.command import Command
from trainer.cli.command_line import quoted
from trainer.config import Config, ConfigError
from trainer.cure import request as requests
from trainer.cure import trial
from trainer.cure.answer import Answer
from trainer.cure.request import QUIET, SEEDS, Request
from trainer.engine.jobs import Job, describe
from trainer.judge import advice, health
from trainer.judge.remedies import Overrides
from trainer.language import print_line
from trainer.text import plural, shown

DIRECTORY = "outputs/cures/${now:%Y-%m-%d}/${now:%H-%M-%S-%f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 2 for bad input, 128 + signal where it was stopped."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    app.prepare(workers=not {"--help", "-h", "--version"} & set(given))
    return app.attempt(lambda: requests.read(given), _run, _stopped)


def _run(request: Request, command: Command) -> int:
    """Train the trial and say what it shows; return 0. Raises ConfigError, OSError, and what Hydra raises."""
    batches = Batches(command, DIRECTORY)
    (composed,) = batches.compose([request.overrides])
    assert isinstance(composed.config, Config)
    request.line.check_code([composed.config])
    request.line.say_what_was_found()
    tried = _accepted(request, batches, composed.config, trial.candidates(request.names, composed.config.flat()))
    if not tried:
        raise ConfigError([f"{request.run}: no cure changes anything with what was typed here"])
    print_line(f"run       {request.run}: {', '.join(map(health.name, request.findings))}")
    seeds = f"seeds {request.seed} to {request.seed + SEEDS - 1}"
    print_line(
        f"tried     {plural(len(tried), 'cure')} beside it, {request.budget}, {seeds}: {SEEDS * (len(tried) + 1)} runs"
    )
    print_line(f"folder    {batches.directory}")
    jobs = batches.train(batches.directory, [job for cure in ({}, *tried) for job in _jobs(request, cure)])
    command.began = True
    answer = _answer(request, tried, [jobs[i : i + SEEDS] for i in range(0, len(jobs), SEEDS)])
    if request.options.json:
        files.write(Path(request.options.json), files.to_json(answer.to_json()))
    answer.show(sys.stdout)
    sys.stdout.flush()
    return 0


def _accepted(request: Request, batches: Batches, config: Config, candidates: Sequence[Overrides]) -> list[Overrides]:
    """Return the cures that the run's configuration takes, each of which makes another configuration."""
    seen, out = [config], []
    for cure in candidates:
        attempt = batches.composer.attempt(0, trial.applied(request.overrides, cure))
        if not isinstance(attempt, ConfigError) and isinstance(attempt.config, Config) and attempt.config not in seen:
            seen.append(attempt.config)
            out.append(cure)
    return out


def _jobs(request: Request, cure: Overrides) -> list[list[str]]:
    """List the overrides of a cure's runs, one with each seed."""
    short = dict(text.split("=") for text in (*QUIET, request.budget))
    overrides = trial.applied(trial.applied(request.overrides, short), cure)
    return [[*overrides, f"seed={request.seed + s}"] for s in range(SEEDS)]


def _answer(request: Request, tried: Sequence[Overrides], groups: Sequence[Sequence[Job]]) -> Answer:
    """Take in what the runs came to. Raises ConfigError where the run itself cannot be trained again."""
    if errors := [job.error for job in groups[0] if job.error is not None]:
        raise ConfigError(errors[0].problems if isinstance(errors[0], ConfigError) else [describe(errors[0])])
    chances = [_chance(job) for job in groups[0]]
    kept, costs = [], []
    measure = "val loss" if all("val/loss" in (job.summary or {})["best"] for job in groups[0]) else "train loss"
    for cure, jobs in zip(({}, *tried), groups, strict=True):
        if failed := [job for job in jobs if job.error is not None]:
            assert failed[0].error is not None
            print_line(f"{advice.written(cure)} cannot be tried: {describe(failed[0].error)}")
            continue
        kept.append(cure)
        costs.append([_cost(job, chance) for job, chance in zip(jobs, chances, strict=True)])
    return Answer(request, kept[1:], np.array(costs), measure)


def _chance(job: Job) -> float:
    """Return the loss of guessing; where the run's own loss has none, what it starts at."""
    start = (job.summary or {})["start"]
    return float(start.get("guessing_loss", start["loss"]))


def _cost(job: Job, chance: float) -> float:
    summary = job.summary or {}
    best = {key: float(value) for key, value in summary["best"].items()}
    return trial.cost(best, chance, summary["verdict"]["verdict"] == "diverged")


def _stopped(command: Command | None, code: int) -> int:
    print_line("trainer: interrupted", sys.stderr)
    if command is not None and command.folder is not None and command.folder.exists():
        typed = [text for text in command.line.typed if not text.startswith("hydra.sweep.dir=")]
        words = shlex.join([*typed, f"hydra.sweep.dir={quoted(str(command.folder))}"])
        print_line(f"continue  python -m trainer.cure {shown(command.line.resumed or Path())} {words}")
    return code


if __name__ == "__main__":
    sys.exit(main())
