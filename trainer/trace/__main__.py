"""`python -m trainer.trace`: takes one training step of a configuration apart, every number proven."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from trainer import config as cfg
from trainer import files, stdio
from trainer.cli import command_line, hints
from trainer.cli.config_files import CONF, Sources
from trainer.config import ConfigError, nearest
from trainer.language import localised, translated
from trainer.text import key_of, plural, version

DATA = ("data=clusters", "data.batch_size=5")  # where no data set is chosen
NETWORK = ("model.depth=1", "model.width=5")  # 4-5-10, where no model is chosen either
RIVALS = ("adam", "adamw", "nadam", "rmsprop", "sgd")  # compared in part 7
FLAGS = ("--help", "--member", "--steps", "--part", "--json", "--svg", "--config-dir", "--version")
CHOOSES_DATA = ("data=", "experiment=", "problem=")
MOST_STEPS = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 where a gradient is wrong or missing, 2 for bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.path.insert(0, os.getcwd())  # for a user's own code
    try:
        options, overrides = _parse(given)
        targets = ((options.json, "trace.json"), (options.svg, "trace.svg"))
        if problems := [line for target in targets for line in files.target_problems(*target)]:
            raise ConfigError(problems)
        flags = [f"--config-dir={options.config_dir}"] if options.config_dir else []
        line = command_line.read([*flags, *overrides])
        raw = compose(overrides, line.sources)
        config, others = cfg.from_dict(raw), rivals(raw, overrides, line.sources)
        from trainer.trace import collect, function, function_text, svg, text  # torch: bad input need not wait for it

        found = function.look(config.model) if isinstance(config.model, cfg.Surface) else None
        of_steps = list(text.PARTS) if found is None or found.is_loss else []
        of_function = [] if found is None else list(function_text.PARTS) if found.failure is None else [8]
        shown = _parts(options, of_steps, of_function)
        wanted = bool(of_steps) and (options.json or options.svg or not set(shown) <= set(of_function))
        trace = collect.trace(config, options.member, options.steps, others) if wanted else None
        if trace is not None:
            trace.function = found
        if options.svg and trace is not None:
            files.write(Path(options.svg), svg.draw(trace))
        whole = {"function": found and dataclasses.asdict(found)} if trace is None else dataclasses.asdict(trace)
        as_json = files.to_json(whole)
        if options.json and options.json != "-":
            files.write(Path(options.json), as_json + "\n")
    except ConfigError as error:
        return _say(error.problems)
    except OSError as error:
        return _say([f"{error.filename}: {error.strerror or error}"])
    said = sys.stderr if options.json == "-" else sys.stdout
    line.say_what_was_found(said)
    out = text.Printer(said)
    if trace is not None and (parts := [part for part in shown if part in of_steps]):
        text.show(out, trace, shlex.join(["python", "-m", "trainer", *flags, *overrides]), parts)
    if found is not None and (parts := [part for part in shown if part in of_function]):
        function_text.show(out, found, parts)
    if options.json == "-":
        print(as_json)
    return int(bool((trace and trace.faults) or (found and (found.faults or found.failure))))


def _say(problems: Sequence[str]) -> int:
    """Print every problem on stderr; return exit code 2."""
    said = f"trainer.trace: {plural(len(problems), 'problem')}; nothing was traced (python -m trainer.trace --help)"
    lines = [said, *problems]
    print("\n  ".join(map(translated, lines)), file=sys.stderr)
    return 2


def _parse(given: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return (flags, overrides). Raises ConfigError for an unknown flag."""
    options, overrides = _parser().parse_known_args(list(given))
    unknown = [word for word in overrides if word.startswith("-")]
    if unknown:
        hints = {"-m": "a trace takes one configuration; sweeps are for python -m trainer", "--multirun": ""}
        raise ConfigError([f"{flag}: no such flag; {hints.get(flag) or nearest(flag, FLAGS)}" for flag in unknown])
    if not any(word.startswith(CHOOSES_DATA) for word in overrides):
        chooses_model = any(word.startswith("model=") for word in overrides)
        overrides = [*DATA, *(() if chooses_model else NETWORK), *overrides]
    return options, overrides


def _parts(options: argparse.Namespace, of_steps: Sequence[int], of_function: Sequence[int]) -> list[int]:
    """Return the parts to show. Raises ConfigError for one that is not there, and a picture that cannot be drawn."""
    there = [*of_steps, *of_function]
    why = (
        "parts 8 to 10 are of functions, problem=NAME" if of_steps else "parts 1 to 7 are of one number with a gradient"
    )
    problems = [
        f"--part {part}: {why}; this has {', '.join(map(str, there))}"
        for part in options.part or ()
        if part not in there
    ]
    if options.svg and not of_steps:
        problems.append("--svg: only the graph of one number with a gradient is drawn")
    if problems:
        raise ConfigError(problems)
    return options.part or there


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.trace",
        description="Take one training step apart: parameters, forward, graph, backward, the optimizer's step by "
        "hand, what is left after it, more steps; and of a function its operations, the chain rule, more derivatives. "
        "On your configuration, every number proven.",
        epilog="OVERRIDES are those of python -m trainer (see its --help), e.g. optimizer=sgd optimizer.momentum=0.9 "
        f"model.dropout=0.5. Without a data set it is {' '.join(DATA + NETWORK)}: a network 4-5-10. The same step "
        "in words, part by part: docs/trace/. Exit code: 0, 1 where a gradient is wrong or missing, 2 for bad "
        "input.",
        usage="%(prog)s [OVERRIDES ...] [--member PARAMETER] [--steps N] [--part N] [--json FILE] [--svg FILE] "
        "[--config-dir DIR]",
        exit_on_error=True,
    )
    add = parser.add_argument
    add("--member", metavar="PARAMETER", help="the weight to follow, e.g. layers.0.weight[2,3], or a parameter; "
        "without an index the entry with the largest gradient")  # fmt: skip
    add("--steps", metavar="N", type=_steps, default=5, help="how many steps to follow it for (default %(default)s)")
    add("--part", metavar="N", type=int, choices=range(1, 11), action="append", help="show one part of the ten "
        "alone; may be repeated")  # fmt: skip
    add("--json", metavar="FILE", help="write everything as JSON; - prints it on the standard output")
    add("--svg", metavar="FILE", help="draw the graph")
    add("--version", action="version", version=version(), help="say which versions run")
    add(
        "--config-dir", metavar="DIR", help="a folder of your own configuration files (default ./conf, if there is one)"
    )
    return localised(parser)


def _steps(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_STEPS:
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number of steps from 1 to {MOST_STEPS}")
    return int(text)


def compose(overrides: Sequence[str], sources: Sources | None = None) -> dict[str, object]:
    """Compose the configuration, unchecked. Raises ConfigError with every problem of the overrides."""
    sources = sources or Sources()
    try:
        return sources.compose(overrides)
    except Exception as error:
        if not hints.is_of_composing(error):
            raise
        raise ConfigError(hints.problems(sources, overrides, error)) from error


def rivals(
    raw: dict[str, object], overrides: Sequence[str], sources: Sources | None = None
) -> dict[str, cfg.Optimizer]:
    """Build the usual optimizers of conf/optimizer/ as they would be on this command line without own settings."""
    if cfg.model_class(raw["model"]) is cfg.Surface:  # whose learning rates depend on the function
        others = [text for text in overrides if not key_of(text).startswith("optimizer")]
        return {name: cfg.from_dict(compose([*others, f"optimizer={name}"], sources)).optimizer for name in RIVALS}
    found = {name: yaml.safe_load((CONF / "optimizer" / f"{name}.yaml").read_text("utf-8")) for name in RIVALS}
    return {name: cfg.from_dict({**raw, "optimizer": values}).optimizer for name, values in found.items()}


if __name__ == "__main__":
    stdio.prepare()
    sys.exit(stdio.settled("trainer.trace", main()))
