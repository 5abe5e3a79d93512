"""Hydra's side of a sweep: a launcher that trains the jobs of a batch as stacks, and a sweeper that lets it.

Hydra composes each job in about 90 ms and writes it in 45; for a hundred short runs that is more than the training.
Here jobs that choose the same files of conf/ are composed once, and their values set on a copy.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, env_override, filter_overrides, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer import config as cfg
from trainer import files
from trainer.cli import overrides as diagnose
from trainer.config import Config, ConfigError, nearest
from trainer.engine import interrupts, lock

Plugins.instance()  # executes the core plugins' modules anew, so a class of theirs can be derived from only after it
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402

if TYPE_CHECKING:
    from trainer.engine.jobs import Job
    from trainer.engine.resume import run_plan

MODULE = "hydra_plugins.trainer_launcher"  # Hydra takes plugins from this namespace alone
NUMBER_MARKER = 987654321
TASK_MARKER = "__TASK__"
finished: list[Job] = []  # every job this process launched, for the table at the end


@dataclass
class Asked:
    """What the command line asks of a launcher beside its jobs."""

    overrides: list[str] = field(default_factory=list)  # as typed, for resume=DIR
    dry_run: bool = False


asked = Asked()


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper without its dry composition of every job: the launcher checks each as it composes it."""

    def validate_batch_is_legal(self, batch: Any) -> None:
        """The launcher reports a job that cannot be composed, and trains the others."""

    def sweep(self, arguments: list[str]) -> Any:
        """As Hydra's, which writes multirun.yaml, but only where it is not there and something is to be run.

        Raises ConfigError where there is nothing to sweep.
        """
        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        batches = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), self.max_batch_size)
        if not any(batches):
            raise ConfigError([f"{' '.join(arguments)}: an empty sweep; give every key at least one value"])
        path = Path(str(self.config.hydra.sweep.dir)) / "multirun.yaml"
        if not (asked.dry_run or path.exists()):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, OmegaConf.to_yaml(self.config))
        returns: list[Sequence[JobReturn]] = []
        for batch in batches:
            returns.append(self.launcher.launch(batch, initial_job_idx=sum(map(len, returns))))
            for job in returns[-1]:
                _ = job.return_value  # raises what the job raised
        return returns


class StackLauncher(Launcher):
    """Trains the jobs of a batch together, in this process. max_members bounds a stack."""

    def __init__(self, max_members: int, workers: int | None = None) -> None:
        self.max_members, self.workers = max_members, workers

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra's sweepers."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose, check and train a batch of jobs, or what of it is not done; one JobReturn each, in order.

        Raises ConfigError where the sweep's directory is in use, or holds other runs than these.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        folder = Path(str(self.config.hydra.sweep.dir))
        composer = Composer(self.hydra_context, self.config)
        numbered = list(enumerate(map(list, job_overrides), initial_job_idx))
        from trainer.engine import pool, runtime

        if self.workers != 0:
            pool.warm_up()  # it imports torch, which takes longer than what follows here
        attempts = [composer.attempt(*job) for job in numbered]
        from trainer.cli import display as terminal
        from trainer.engine.resume import run_plan

        composed = [None if isinstance(attempt, ConfigError) else attempt for attempt in attempts]
        jobs = [_job(number, folder, o, attempt) for (number, o), attempt in zip(numbered, attempts, strict=True)]
        if asked.dry_run:
            self._place(run_plan.Session(folder, asked.overrides), composer, jobs, composed).say(jobs)
            return []
        with lock.held(folder) as handle:
            session = self._place(run_plan.Session(folder, asked.overrides), composer, jobs, composed)
            session.commit()
            for job, parts in zip(jobs, composed, strict=True):
                if job.status == "waiting" and parts is not None:
                    parts.write()
            for note in session.notes:
                print(f"note: {note}")
            finished.extend(jobs)
            with env_override(self.config.hydra.job.env_set), interrupts.caught() as ended_by:
                self._call("on_job_start", jobs, composed)
                with terminal.SweepDisplay([job for job in jobs if not job.finished_earlier]) as display:
                    workers = self.workers
                    if workers is None:
                        workers = runtime.workers([job.config for job in jobs if job.config is not None])
                    pool.train_stacks(session.stacks, workers, display, lambda: bool(ended_by), handle)
            returns = [_job_return(job) for job in jobs]
            self._call("on_job_end", jobs, composed, returns)
        return returns

    def _place(
        self, session: run_plan.Session, composer: Composer, jobs: list[Job], composed: list[Composed | None]
    ) -> run_plan.Session:
        """Give every job its directory, which may be another's number where a sweep has grown, and plan the stacks."""
        names = [str(Path(parts.directory).relative_to(session.directory)) if parts else "" for parts in composed]
        places = session.places([job.config for job in jobs], names)
        for i, (job, place) in enumerate(zip(jobs, places, strict=True)):
            parts = composed[i]
            if job.config is None or parts is None:
                continue  # it has no directory: nothing is written
            if place != names[i]:
                job.number = int(place)
                composed[i] = composer.compose(job.number, job.overrides)
            job.directory = session.directory / place
        session.plan(jobs, self.max_members)
        return session

    def _call(self, hook: str, jobs: list[Job], composed: list[Composed | None], returns: Any = None) -> None:
        """Hydra's callbacks, each with HydraConfig set to its job; nothing where none is configured."""
        if not self.config.hydra.callbacks:
            return
        before = HydraConfig.instance().cfg
        for i, parts in enumerate(composed):
            if parts is not None:
                whole = parts.whole()
                HydraConfig.instance().set_config(whole)
                extra = {"task_function": None} if returns is None else {"job_return": returns[i]}
                getattr(self.hydra_context.callbacks, hook)(config=whole, **extra)
        HydraConfig.instance().cfg = before


@dataclass
class Composed:
    """One job's configuration as Hydra would compose it, in cheap forms."""

    number: int
    directory: str
    dirname: str  # the overrides in one word, hydra.job.override_dirname
    overrides: list[str]
    raw: dict[str, Any]  # the task's configuration, interpolations as they are
    config: Config | ConfigError
    files: dict[str, str]  # those of .hydra: name -> text
    base: DictConfig

    def write(self) -> None:
        """The run directory with .hydra/ in it."""
        folder = Path(self.directory) / ".hydra"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            files.write(folder / name, text)

    def whole(self) -> DictConfig:
        """The job's whole configuration with its hydra node, as callbacks expect it."""
        out = copy.deepcopy(self.base)
        for key, value in self.raw.items():
            out[key] = value
        out.hydra.job.num = out.hydra.job.id = self.number
        out.hydra.job.override_dirname = self.dirname
        out.hydra.overrides.task = self.overrides
        out.hydra.runtime.output_dir = str(Path(self.directory).absolute())
        return out


@dataclass
class Base:
    """What jobs that choose the same files of conf/ have in common."""

    whole: DictConfig
    raw: dict[str, Any]  # the task's part, interpolations as they are
    hydra_yaml: str  # with markers where jobs differ
    folder: str | None  # the jobs' directories by number lie there; None: they are named otherwise


class Composer:
    """Composes jobs: once with Hydra for each choice of files, then by setting values on copies."""

    def __init__(self, hydra_context: HydraContext, master: DictConfig) -> None:
        self.loader = hydra_context.config_loader
        self.master = master
        self.groups = set(self.loader.list_groups(""))
        self.bases: dict[tuple[str, ...], Base] = {}

    def attempt(self, number: int, overrides: list[str]) -> Composed | ConfigError:
        """The job's configuration, or in our words why there is none."""
        try:
            return self.compose(number, overrides)
        except ConfigError as error:
            return error
        except (HydraException, OmegaConfBaseException) as error:
            return ConfigError(diagnose.problems(diagnose.CONF, overrides, error))

    def compose(self, number: int, overrides: list[str]) -> Composed:
        """The job's configuration, checked. Raises ConfigError or one of Hydra's for an override that cannot be."""
        parsed = [(text, _parse(text)) for text in overrides]
        simple = [override for _, override in parsed if self._sets_a_value(override)]
        base = self._base(tuple(text for text, o in parsed if not self._sets_a_value(o)))
        raw, hydra_yaml = copy.deepcopy(base.raw), base.hydra_yaml
        for override in simple:
            _set(raw, override.key_or_group, override.value())
        task = list(filter_overrides(overrides))
        separate = base.whole.hydra.job.config.override_dirname  # a choice of files may set it
        dirname = separate.item_sep.join(
            sorted(t.replace("=", separate.kv_sep) for t in task if t.split("=")[0] not in separate.exclude_keys)
        )
        directory = f"{base.folder}/{number}" if base.folder else self._directory(base.whole, number, dirname)
        for marker, value in (
            (str(NUMBER_MARKER), number),
            ("__ID__", str(number)),
            ("__DIRNAME__", dirname),
            ("__OUTPUT_DIR__", str(Path(directory).absolute())),
            (TASK_MARKER, task),
        ):
            hydra_yaml = hydra_yaml.replace(marker, json.dumps(value))
        texts = {"config.yaml": _yaml(raw), "overrides.yaml": _yaml(task), "hydra.yaml": hydra_yaml}
        try:
            config = cfg.from_dict(_resolve(raw))
        except ConfigError as error:
            config = error
        return Composed(number, directory, dirname, task, raw, config, texts, base.whole)

    def _sets_a_value(self, override: Override) -> bool:
        """Whether an override does nothing but give an existing key a plain value."""
        key, value = override.key_or_group, override.value()
        plain = override.package is None and not (override.is_add() or override.is_delete())
        own = key not in self.groups and "/" not in key and not key.startswith("hydra.")
        return plain and own and "${" not in str(value)

    def _base(self, overrides: tuple[str, ...]) -> Base:
        """What Hydra composes from these overrides."""
        if overrides not in self.bases:
            whole = self.loader.load_sweep_config(self.master, list(overrides))
            OmegaConf.set_readonly(whole.hydra, False)
            OmegaConf.set_struct(whole, False)
            task = OmegaConf.to_container(whole, resolve=False)
            assert isinstance(task, dict)
            sweep = task.pop("hydra")["sweep"]
            numbered = sweep["subdir"] == "${hydra.job.num}" and "hydra.job" not in sweep["dir"]
            folder = str(Path(str(whole.hydra.sweep.dir))) if numbered else None
            hydra = copy.deepcopy(whole)
            for key in task:
                del hydra[key]
            hydra.hydra.job.num, hydra.hydra.job.id = NUMBER_MARKER, "__ID__"
            hydra.hydra.job.override_dirname = "__DIRNAME__"
            hydra.hydra.overrides.task = [TASK_MARKER]
            hydra.hydra.runtime.output_dir = "__OUTPUT_DIR__"
            text = re.sub(rf"\n *- {TASK_MARKER}", f" {TASK_MARKER}", OmegaConf.to_yaml(hydra))  # a list in a line
            self.bases[overrides] = Base(whole, {str(k): v for k, v in task.items()}, text, folder)
        return self.bases[overrides]

    def _directory(self, base: DictConfig, number: int, dirname: str) -> str:
        """hydra.sweep.dir / hydra.sweep.subdir of a job."""
        base.hydra.job.num = base.hydra.job.id = number
        base.hydra.job.override_dirname = dirname
        return str(Path(str(base.hydra.sweep.dir)) / str(base.hydra.sweep.subdir))


@functools.cache
def _parse(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    parts = dotted.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(tree, dict) or part not in tree:
            known = f"; {nearest(part, map(str, tree))}" if isinstance(tree, dict) else ""
            raise ConfigError([f"{'.'.join(parts[: depth + 1])}: no such key{known}"])
        if depth == len(parts) - 1:
            tree[part] = value
        tree = tree[part]


def _resolve(raw: dict[str, Any]) -> dict[str, Any]:
    """The tree with its interpolations resolved. Those of environment variables alone need no tree: looked up once."""

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, str) and "${" in node:
            if not (node.startswith("${oc.env:") and node.count("${") == 1):
                raise LookupError
            return _environment(node)
        return node

    try:
        return walk(raw)
    except LookupError:
        resolved = OmegaConf.to_container(OmegaConf.create(raw), resolve=True)
        assert isinstance(resolved, dict)
        return {str(key): value for key, value in resolved.items()}


@functools.cache
def _environment(interpolation: str) -> Any:
    return OmegaConf.create({"value": interpolation}).value


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False, allow_unicode=True)


class QuietJobReturn(JobReturn):
    """A JobReturn that raises its job's error without a line of its own on stderr: the sweep's table says it."""

    @property
    def return_value(self) -> Any:
        """The job's objective. Raises what the job raised."""
        if self.status == JobStatus.FAILED:
            raise self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def _job(number: int, folder: Path, overrides: list[str], attempt: Composed | ConfigError) -> Job:
    """A job with its checked configuration; a failed one where that could not be."""
    from trainer.engine.jobs import Job

    job = Job(number, folder, list(filter_overrides(overrides)))
    config = attempt.config if isinstance(attempt, Composed) else attempt
    if isinstance(config, ConfigError):
        job.fail(config)
    else:
        job.config = config
    return job


def _job_return(job: Job) -> JobReturn:
    out = QuietJobReturn(overrides=job.overrides, working_dir=str(job.directory), task_name="trainer")
    if job.error is not None:
        out.status, out.return_value = JobStatus.FAILED, job.error
    else:
        out.status, out.return_value = JobStatus.COMPLETED, job.objective
    return out


def register() -> None:
    """Make the classes of conf/hydra/ known to Hydra, without a folder hydra_plugins of ours."""
    namespace = sys.modules.setdefault("hydra_plugins", types.ModuleType("hydra_plugins"))
    if not hasattr(namespace, "__path__"):
        namespace.__path__ = []
    sys.modules[MODULE] = sys.modules[__name__]
    namespace.trainer_launcher = sys.modules[__name__]  # type: ignore[attr-defined]
    for plugin in (StackLauncher, GridSweeper):
        plugin.__module__ = MODULE
        Plugins.instance().register(plugin)
