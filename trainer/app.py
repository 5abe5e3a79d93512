"""The command line: compose a configuration with Hydra, check it, train, say what happened."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer import config as cfg
from trainer import diagnose
from trainer.config import Config, ConfigError

_CHECKOUT = Path(__file__).parents[1] / "conf"
CONF = _CHECKOUT if _CHECKOUT.is_dir() else Path(__file__).parent / "conf"  # beside us, or inside an installed wheel
exit_code = 0  # of the task: Hydra hands nothing back


def run(arguments: list[str]) -> int:
    """Run a command line; the exit code: 0, 2 for a user's mistake, 128 + signal number where a signal ended it."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise, so that we say it in our words
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic=true wants on a GPU
    sys.path.insert(0, os.getcwd())  # for model._target_ of the user's own, also from the console script
    if {"--help", "-h"} & set(arguments):
        print(diagnose.help_text(CONF, arguments))
        return 0
    try:
        main()
    except ConfigError as error:
        return report(error.problems)
    except (HydraException, OmegaConfBaseException) as error:
        return report(diagnose.problems(CONF, arguments, error))
    except OSError as error:
        return report([_os_problem(error)])
    return exit_code


def report(problems: list[str]) -> int:
    """Print every problem to stderr; exit code 2."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"trainer: {count}; nothing was run (python -m trainer --help lists every key)", *problems]
    print("\n  ".join(lines), file=sys.stderr)
    return 2


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(composed: DictConfig) -> float | None:
    """Train one run in the directory Hydra made; its best monitored value, for sweepers that optimise."""
    global exit_code
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        with _signals() as ended_by:
            value, summary = train_run(check(composed), directory, lambda: bool(ended_by))
            if summary["status"] == "interrupted":
                exit_code = 128 + ended_by[0]
            return value
    except ConfigError as error:
        exit_code = report(error.problems)
    except OSError as error:
        exit_code = report([_os_problem(error)])
    _remove_if_bare(directory)
    return None


def check(composed: DictConfig) -> Config:
    """The checked configuration. Raises ConfigError with every problem."""
    return cfg.from_dict(OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]


def train_run(config: Config, directory: Path, stop: Callable[[], bool]) -> tuple[float, dict[str, Any]]:
    """Train one run into a directory; its best monitored value and its summary. Raises ConfigError and OSError."""
    if (directory / "metrics.csv").exists():
        raise ConfigError([f"{directory}: already holds a run; choose another directory, hydra.run.dir=DIR"])
    from trainer import (
        terminal,  # torch comes with these: --help and --cfg start without it
        work,
    )
    from trainer.record import Recorder
    from trainer.train import Stack, train

    device = work.set_up(config)
    stack = Stack([config], work.load(config, device))
    work.set_threads(stack)
    display = terminal.Display(stack)
    recorder = Recorder(stack, [directory], display)
    member = stack.members[0]

    def poll() -> bool:
        display.tick(stack)
        return stop()

    with display:
        train(stack, recorder, poll)
    summary = recorder.summaries[0]
    assert summary is not None
    display.summary(summary, directory)
    return (member.best.value if member.best else float("nan")), summary


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Catch the first Ctrl-C or SIGTERM as an entry of the list; the second ends the process at once."""
    caught: list[int] = []

    def first(number: int, frame: object) -> None:
        caught.append(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    before = {number: signal.signal(number, first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _os_problem(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; make room or choose another folder with hydra.run.dir=DIR"


def _remove_if_bare(directory: Path) -> None:
    """Remove a run directory that holds nothing but what Hydra wrote before the run was refused."""
    if directory.is_dir() and {path.name for path in directory.iterdir()} <= {".hydra"}:
        shutil.rmtree(directory)
