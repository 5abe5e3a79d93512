"""Sweeps whose runs depend on those before: each batch of overrides trains as a sweep does, in a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra._internal.callbacks import Callbacks
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from trainer.cli import choices, hints, sweep_table
from trainer.cli.command import Command
from trainer.cli.command_line import quoted
from trainer.cli.compose import Composed, Composer
from trainer.cli.config_files import Sources, parse
from trainer.cli.hydra_plugins import GridSweeper
from trainer.config import ConfigError

if TYPE_CHECKING:
    from trainer.engine.jobs import Job


class Batches:
    """The batches of one command, with its choices of launcher settings and of where configuration files lie."""

    def __init__(self, command: Command, default_directory: str) -> None:
        """default_directory: where none was typed as hydra.sweep.dir; with interpolations. Raises what Hydra raises."""
        line = command.line
        self.command = command
        self.sources = line.sources
        self.loader = self.sources.loader()
        texts = [text for text in line.overrides if text.startswith("hydra")]
        self.typed = [text for text in texts if not text.startswith("hydra.sweep.dir=")]
        named = [text for text in texts if text not in self.typed] or [f"hydra.sweep.dir={default_directory}"]
        self.master = self._master(named[-1])
        self.directory = Path(str(self.master.hydra.sweep.dir))
        self.composer = Composer(HydraContext(self.loader, Callbacks()), self.master, self.sources)

    def compose(self, jobs: Sequence[Sequence[str]]) -> list[Composed]:
        """Compose and check every job's overrides. Raises ConfigError with all that is wrong with any."""
        out, problems = [], list[str]()
        for number, overrides in enumerate(jobs):
            attempt = self.composer.attempt(number, list(overrides))
            if isinstance(attempt, ConfigError):
                problems += hints.problems(self.sources, overrides, attempt)
            elif isinstance(attempt.config, ConfigError):
                problems += attempt.config.problems
            else:
                out.append(attempt)
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        return out

    def train(self, folder: Path, jobs: Sequence[Sequence[str]]) -> list[Job]:
        """Train what is not done of these jobs below a folder, and write its sweep.csv and sweep.json.

        The jobs come back in order, each with its summary. Raises what a launcher raises, and OSError.
        """
        config = self._master(f"hydra.sweep.dir={quoted(str(folder))}")
        context = HydraContext(self.loader, Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=self.command, config=config
        )
        self.command.jobs.clear()
        launcher.launch([list(overrides) for overrides in jobs], 0)
        out = list(self.command.jobs)
        if any(job.status == "completed" for job in out):
            sweep_table.write(out, folder)
        return out

    def _master(self, directory: str) -> DictConfig:
        return self.loader.load_configuration(self.sources.name, [*self.typed, directory], RunMode.MULTIRUN)


def product(sources: Sources, texts: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Return the jobs that overrides stand for, one value of each key, and notes of what was left out.

    Raises ConfigError.
    """
    try:
        overrides = OverridesParser.create(config_loader=sources.loader()).parse_overrides(list(texts))
    except HydraException as error:
        raise ConfigError(hints.problems(sources, texts, error, is_sweep=True)) from error
    endless = [one for one in overrides if one.is_sweep_override() and not one.is_discrete_sweep()]
    if endless:
        raise ConfigError([f"{one.input_line}: found an interval, expected values, A,B,C" for one in endless])
    return choices.settle(sources, GridSweeper.split_arguments(overrides, None)[0])


def is_swept(text: str) -> bool:
    """Whether an override that can be read gives a key several values."""
    override: Override | None = parse(text)
    return override is not None and override.is_sweep_override()
