"""`python -m trainer.versus`: groups compared fairly, each at its own best learning rate, in one command."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer import evaluate, files
from trainer.cli import app
from trainer.cli.batches import Batches
from trainer.cli.command import Command, remove_if_empty
from trainer.cli.compose import Composed
from trainer.config import ConfigError
from trainer.engine import lock
from trainer.engine.resume import foreign
from trainer.language import print_line
from trainer.read.find_runs import Problems
from trainer.text import few
from trainer.versus import request as requests
from trainer.versus.comparison import Comparison
from trainer.versus.request import Request

DIRECTORY = "outputs/versus/${now:%Y-%m-%d}/${now:%H-%M-%S-%f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 where a run failed, 2 for bad input, 128 + signal where it was stopped."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    app.prepare(workers=not {"--dry-run", "--help", "-h", "--version"} & set(given))
    typed = shlex.join(["python", "-m", "trainer.versus", *given])
    return app.attempt(lambda: requests.read(given), lambda request, command: _run(request, command, typed), _stopped)


def _run(request: Request, command: Command, typed: str) -> int:
    """Do what was asked for; return the exit code. Raises ConfigError, OSError, and what Hydra raises."""
    batches = Batches(command, DIRECTORY)
    comparison = Comparison(request, batches)
    _check(comparison, command)
    directory = command.directory = batches.directory
    command.found_there = directory.exists()
    foreign.refuse(directory, (Path(requests.NAME), "comparison"))
    request.line.say_what_was_found()
    for line in [*(f"note: {note}" for note in request.notes), *comparison.budget()]:
        print_line(line)
    if request.options.dry_run:
        print_line("nothing was run; how long it takes is measured in the first sweep of the search")
        return 0
    print_line(f"folder    {directory}")
    try:
        with lock.held(directory):
            comparison.train()
    except ConfigError:
        if not command.began and not command.found_there:
            (directory / requests.NAME).unlink(missing_ok=True)
            remove_if_empty(directory)
        raise
    _answer(comparison, typed)
    return int(bool(comparison.failed))


def _check(comparison: Comparison, command: Command) -> None:
    """See that every run can be composed, and has a validation split to choose by. Raises ConfigError."""
    request = comparison.request
    composed = _composed(comparison, [[group] for group in request.groups])  # without their grids
    requests.check_grids(request, composed[0].raw)
    composed = _composed(comparison, comparison.first_runs())
    configs = [one.config for one in composed if not isinstance(one.config, ConfigError)]
    command.line.check_code(configs)
    firsts = configs[:: request.candidates]
    blind = [request.name(g) for g, one in zip(request.groups, firsts, strict=True) if one.data.val_fraction == 0]
    if blind:
        why = "data.val_fraction is 0, but what is tuned is chosen on the validation split"
        raise ConfigError([f"{', '.join(blind)}: {why}; try data.val_fraction=0.1"])
    twins = [i for i, config in enumerate(firsts) if config in firsts[:i]]
    if twins:
        names = [request.name(request.groups[i]) for i in (firsts.index(firsts[twins[0]]), twins[0])]
        raise ConfigError([f"{' and '.join(names)}: two groups of the same runs; leave one out"])


def _composed(comparison: Comparison, jobs: Sequence[Sequence[list[str]]]) -> list[Composed]:
    """Compose the jobs of each group. Raises ConfigError, which names the groups that a problem is of, if not all."""
    request, out = comparison.request, list[Composed]()
    found: dict[str, list[str]] = {}  # problem -> groups
    for group, own in zip(request.groups, jobs, strict=True):
        try:
            out += comparison.batches.compose(own)
        except ConfigError as error:
            for problem in error.problems:
                found.setdefault(problem, []).append(request.name(group))
    if found:
        every = len(request.groups)
        said = [text if len(names) == every else f"{text} ({few(names, 1)})" for text, names in found.items()]
        raise ConfigError(said)
    return out


def _answer(comparison: Comparison, typed: str) -> None:
    """Evaluate the final runs; write the files that were asked for, then print the tables."""
    from trainer.report import html, terminal
    from trainer.versus import answer

    options = comparison.request.options
    try:
        evaluation, curves = evaluate.evaluate([comparison.directory / "final"])
    except Problems as none:  # every run failed before its first epoch ended
        raise ConfigError(none.lines) from none
    if options.json:
        whole: dict[str, Any] = {**evaluation, "versus": files.strict(comparison.to_json())}
        files.write(Path(options.json), json.dumps(whole, allow_nan=False))
    if options.html:
        page = Path(options.html).resolve()
        files.write(page, html.page(evaluation, curves, page.parent, typed))
    terminal.print_tables(evaluation, sys.stdout)
    print()
    answer.show(comparison, evaluation, sys.stdout)
    print_line(f"why       {comparison.directory / requests.NAME}")
    if options.html:
        print_line(f"report    {options.html}")
    sys.stdout.flush()


def _stopped(command: Command | None, code: int) -> int:
    where = command and command.directory
    there = where is not None and where.exists()
    hint = [f"go on with python -m trainer.versus {shlex.quote(f'resume={where}')}"] if there else []
    print_line("; ".join(["trainer: interrupted", *hint]), sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
