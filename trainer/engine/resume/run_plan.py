"""Going on in a directory that holds runs: which are done, which go on and in which stacks, and what is refused.

`.resume/plan.json` in the directory of a sweep (or of a single run) says which run lies where, with which
configuration and code, and which runs form a stack. The plan is kept because a member's bits depend on its company: a
stack goes on with the members it began with, however many cores or however much memory there is then. Where a member
is finished and its stack is not, it keeps its place, and nothing of it is written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer import files
from trainer.config import Config, ConfigError
from trainer.core.native import choice
from trainer.engine import planning, runtime
from trainer.engine.jobs import Job, StackJob, describe, ranges
from trainer.engine.resume import finished, foreign
from trainer.engine.resume.checkpoint import Checkpoints, Place
from trainer.engine.resume.plan_file import FOLDER, path_of, read_plan
from trainer.files import Damaged
from trainer.language import print_line
from trainer.record import provenance
from trainer.record.destination import HYDRA, Destination, remove_empty

MAX_PROBLEMS = 10  # told in one message
WRITTEN_INTO = (FOLDER, ".hydra", "checkpoints")  # folders in the directory of a run or sweep
EXTENDED = "extended"  # below FOLDER: runs with more epochs, until they are complete
CHANGED = "choose another directory, or remove this one to train it again"


class Session:
    """A directory that runs are trained in, and the plan that lies in it.

    Asked in this order: `places`, then `plan`, then `commit`, which writes what the first two found out.
    """

    def __init__(self, directory: Path, command: Sequence[str]) -> None:
        """command: the overrides that were typed, for resume=DIR."""
        self.directory = directory
        self.command = list(command)
        self.notes: list[str] = []  # what a user should know: damages, what starts over
        self.stacks: list[StackJob] = []  # those that are left to train
        self._places: dict[str, Place | None] = {}  # name of a stack -> where it goes on
        self.runs: dict[str, dict[str, Any]] = {}  # name (the path below the directory) -> flat config, code
        self.planned: dict[str, dict[str, Any]] = {}  # name of a stack -> names of its runs, stacks side by side
        self._extended: dict[str, dict[str, Any]] = {}  # name of a run with more epochs -> its summary so far
        self._before: list[Callable[[], None]] = []  # to be written before the plan
        self._complete: list[Destination] = []  # extensions that a kill kept from taking their place
        self._after: list[Checkpoints] = []  # to be removed after it
        self._codes: dict[tuple[str, ...], dict[str, Any]] = {}  # by what a configuration names
        if (worker := sys.modules.get("trainer.engine.worker")) is not None:
            worker.forget_data()  # a command may follow another in this process, and files have changed meanwhile
        self.had_plan = path_of(directory).exists()
        try:
            found = read_plan(directory)
        except Damaged as damage:
            self.notes.append(f"{damage}; stacks are planned anew")
            found = finished.recovered(directory)
        self.runs, self.planned = found["runs"], found["stacks"]

    @property
    def folder(self) -> Path:
        """Where the plan and the checkpoints lie."""
        return self.directory / FOLDER

    def name(self, job: Job) -> str:
        """A run's path below the directory."""
        return str(job.directory.relative_to(self.directory))

    # ------------------------------------------------------------------ which run is which

    def places(self, configs: Sequence[Config | None], names: Sequence[str]) -> list[str]:
        """The run of each configuration: one that is here with equal results, whatever its name; else `names`, or the
        next free number where that name is taken.

        Raises ConfigError where a run would be mixed into one of another configuration.
        """
        wanted = [None if config is None else provenance.result_keys(config) for config in configs]
        out: dict[int, str] = {}
        claimed: set[str] = set()
        for unchanged in (set(), {"epochs"}):  # first the runs that are here, then those that get more epochs
            for i, keys in enumerate(wanted):
                if keys is None or i in out:
                    continue
                for name in (names[i], *self.runs):
                    there = name in self.runs and name not in claimed
                    if there and provenance.changed(self.runs[name]["config"], keys) == unchanged:
                        out[i] = name
                        claimed.add(name)
                        break
        problems, taken = [], {*self.runs}
        mixed: dict[str, str] = {}  # what changed -> the first run of which it did
        for i, config in enumerate(configs):
            if config is None:
                continue
            if i in out:
                problems += self._extension(out[i], config)
            elif names[i] in self.runs and names[i] not in claimed:
                mixed.setdefault(self._nearest(wanted[i] or {}, claimed), names[i])
            else:
                out[i] = names[i] if names[i] not in taken else _next_number(taken)
                problems += [] if out[i] == "." else foreign.not_ours(self.directory / out[i])
                taken.add(out[i])
        hint = "repeat its command (more values of a key add runs to a sweep), or choose another directory"
        for changes, name in mixed.items():
            problems.append(f"{self.directory / name}: holds a run of another configuration: {changes}; {hint}")
        _raise(problems)
        return [out.get(i, names[i]) for i in range(len(names))]

    def _nearest(self, wanted: dict[str, Any], claimed: set[str]) -> str:
        """In what a configuration differs from the run here that is most like it."""
        others = [run["config"] for name, run in self.runs.items() if name not in claimed]
        return ", ".join(min((provenance.differences(other, wanted) for other in others), key=len))

    def _extension(self, name: str, config: Config) -> list[str]:
        """Note that a run gets more epochs, if it does; what is wrong with that."""
        was, now = self.runs[name]["config"], provenance.result_keys(config)
        if was == now:
            return []
        where = f"{self.directory / name}: {provenance.differences(was, now)[0]}"
        summary, _ = finished.read_summary(self.directory / name, was)
        if summary is None:
            return [f"{where}, but the run is not finished; finish it as it was, then extend it"]
        if config.record.keep != "all":
            why = f"record.keep={config.record.keep} kept no weights to go on from"
            return [f"{where}, but {why}; choose another directory"]
        if config.steps is not None:
            return [f"{where}, but its budget is steps={config.steps}; choose another directory"]
        if now["epochs"] < was["epochs"]:
            return [f"{where}, but a finished run cannot be made shorter; choose another directory"]
        if config.schedule.spans_budget:
            name = config.schedule.name
            why = f"its learning rate spans {was['epochs']} epochs, over {now['epochs']} it would be another"
            return [f"{where}, but schedule={name}: {why}; choose another directory"]
        self._extended[name] = summary
        return []

    # ------------------------------------------------------------------ what is left to do

    def plan(
        self, jobs: Sequence[Job], max_members: int, workers: int | None = None, elsewhere: int | None = None
    ) -> None:
        """Find the jobs that are done, which become completed, and the stacks of the others.

        workers: that share out new stacks; None: as many as this machine has. elsewhere: threads of a stack, where each
        trains on a machine that it shares with none.

        Raises ConfigError where a finished run is of other code or other data.
        """
        by_name = {self.name(job): job for job in jobs if job.config is not None}
        self._flatten()
        problems: list[str] = []
        for name, job in by_name.items():
            problems += self._survey(name, job) if name in self.runs else []
        _raise(problems)
        self._extend(by_name)
        for name, job in by_name.items():
            assert job.config is not None
            self._enter(name, job)
        self._cut(by_name, max_members)
        planned = {name for entry in self.planned.values() for name in entry["runs"]}
        new = [job for name, job in by_name.items() if name not in planned]
        stacks, side_by_side = planning.plan_side_by_side(new, max_members, workers)
        threads = elsewhere if elsewhere is not None else 1 if side_by_side > 1 else None
        for members in stacks:
            shared = {"workers": 1 if elsewhere is not None else side_by_side, "threads": threads}
            self._add_stack([self.name(job) for job in members], shared)
        for stack, entry in self.planned.items():
            members = [by_name[name] for name in entry["runs"] if name in by_name]
            if any(job.status == "waiting" for job in members):
                problems += self._without_company(entry["runs"], by_name)
                sharing = entry["workers"]
                threads = entry.get("threads", 1 if sharing > 1 else None)
                self.stacks.append(StackJob(members, Checkpoints(self.folder, stack), sharing, threads))
        _raise(problems)
        for item in self.stacks:
            self._inspect(item)
        on_cpu = [c for item in self.stacks for c in item.configs if runtime.device_of(c) == "cpu"]
        if said := choice.note(on_cpu):
            self.notes.append(said)

    def _enter(self, name: str, job: Job) -> None:
        """Enter a job into the plan with the name of its event file, before that is written."""
        assert job.config is not None
        earlier = self.runs.get(name, {})
        if name not in self._extended:
            job.events = earlier.get("events", job.events)
        if name in self._extended or (earlier.get("staged") and job.status == "waiting"):
            job.staging = self.folder / EXTENDED / name
        self.runs[name] = {
            "config": provenance.result_keys(job.config),
            "code": self._code(job.config),
            "events": job.events,
            "staged": job.staging is not None,
        }

    def _code(self, config: Config) -> dict[str, Any]:
        """What computes a run, looked at once for all runs that name the same code."""
        targets = tuple(config.targets().values())
        if targets not in self._codes:
            self._codes[targets] = provenance.code(config)
        return self._codes[targets]

    def _inspect(self, item: StackJob) -> None:
        """Find out where a stack goes on; note which of its checkpoints and records are damaged."""
        saved, damages = item.checkpoints.load([job.destination.folder for job in item.jobs])
        where = self._places[item.checkpoints.name] = Place(saved["epoch"], saved["step"]) if saved else None
        then = f"goes on after epoch {where.epoch}, step {where.step}" if where else "starts from the beginning"
        numbers = [job.number for job in item.waiting]
        for damage in damages:
            self.notes.append(f"{damage}; run{'s' * (len(numbers) > 1)} {ranges(numbers)} {then}")

    def _without_company(self, names: list[str], by_name: dict[str, Job]) -> list[str]:
        missing = [name for name in names if name not in by_name]
        if not missing:
            return []
        why = f"the runs {', '.join(missing)} train in one stack with others of this command, which leaves them out"
        return [f"{self.directory}: {why}; repeat the whole command, resume={self.directory}"]

    def _survey(self, name: str, job: Job) -> list[str]:
        """Complete a job that is done before; what is wrong with it."""
        assert job.config is not None
        was, code = self.runs[name], self._code(job.config)
        summary, damage = finished.read_summary(job.directory, was["config"])
        if summary is None and was.get("staged"):  # an extension, which may be complete and not in its place
            destination = Destination(job.directory, was["events"], self.folder / EXTENDED / name)
            summary = finished.completed(destination.folder, was["config"])
            if summary is not None:
                self._complete.append(destination)
                damage = None
        if damage:
            self.notes.append(f"{damage}; the run is trained again")
        if summary is None:
            if was["code"] != code:
                changes = ", ".join(provenance.differences(was["code"], code))
                self.notes.append(f"{job.directory}: its code has changed ({changes}); it starts from the beginning")
                stacks = [stack for stack, entry in self.planned.items() if name in entry["runs"]]
                self._after += [Checkpoints(self.folder, stack) for stack in stacks]
            return []
        from trainer.engine import worker  # torch: only to look at the data of a run that is done

        then = {"data": summary["provenance"]["data_hash"], **was["code"]}
        now = {"data": worker.data_hash(job.config), **code}
        if then != now:
            changes = ", ".join(provenance.differences(then, now))
            return [f"{job.directory}: was finished with other code or data: {changes}; {CHANGED}"]
        if name not in self._extended:
            job.finish(summary)
            job.finished_earlier = True
        return []

    def _cut(self, by_name: dict[str, Job], max_members: int) -> None:
        """Cut stacks that are larger than is asked for now: where one was too large for the memory, say."""
        for stack, entry in list(self.planned.items()):
            runs = entry["runs"]
            if len(runs) <= max_members or all(by_name[name].status != "waiting" for name in runs if name in by_name):
                continue
            for start in range(0, len(runs), max_members):
                self._add_stack(runs[start : start + max_members], entry)
            del self.planned[stack]
            self._after.append(Checkpoints(self.folder, stack))
            numbers = ranges([by_name[name].number for name in runs if name in by_name])
            self.notes.append(
                f"runs {numbers} were one stack; in stacks of at most {max_members} they start from the beginning"
            )

    def _flatten(self) -> None:
        """Halves of stacks that had to be halved are stacks of their own."""
        while halved := [stack for stack in self.planned if Checkpoints(self.folder, stack).is_halved]:
            for stack in halved:
                entry, checkpoints = self.planned.pop(stack), Checkpoints(self.folder, stack)
                middle = len(entry["runs"]) // 2
                halves = (entry["runs"][:middle], entry["runs"][middle:])
                for half, runs in zip(checkpoints.halves(), halves, strict=True):
                    self.planned[half.name] = {**entry, "runs": runs}
                self._after.append(checkpoints)

    def _extend(self, by_name: dict[str, Job]) -> None:
        """Move runs with more epochs into stacks of their own: those that ended together go on together."""
        for stack, entry in list(self.planned.items()):
            groups: dict[tuple[object, ...], list[str]] = {}
            for name in entry["runs"]:
                if name in self._extended:
                    summary = self._extended[name]
                    groups.setdefault((summary["steps"], summary["stopped_by"] == "budget"), []).append(name)
            for names in groups.values():
                checkpoints = Checkpoints(self.folder, self._add_stack(names, entry))
                summaries = [self._extended[name] for name in names]
                jobs = [by_name[name] for name in names]
                self._before.append(lambda c=checkpoints, jobs=jobs, s=summaries: c.save(finished.continued(jobs, s)))
            entry["runs"] = [name for name in entry["runs"] if name not in self._extended]
            if not entry["runs"]:
                del self.planned[stack]

    def _add_stack(self, names: list[str], like: dict[str, Any]) -> str:
        number = str(1 + max((int(stack.split(".")[0]) for stack in self.planned), default=-1))
        self.planned[number] = {**like, "runs": names}
        return number

    def retract(self, jobs: Sequence[Job]) -> None:
        """Remove what this command wrote for runs that were all refused, and the folders that are empty without it."""
        if self.had_plan:
            return
        folders = [job.directory for job in jobs if job.config is not None]
        written = [folder / name for folder in folders for name in (*HYDRA, "summary.json")]
        for path in (*written, path_of(self.directory), *self.folder.glob("data-*"), self.multirun):
            path.unlink(missing_ok=True)
        for item in self.stacks:
            item.checkpoints.remove()
        remove_empty(*(folder / ".hydra" for folder in folders), *folders, self.folder, self.directory)

    @property
    def multirun(self) -> Path:
        """Hydra's record of a sweep."""
        return self.directory / "multirun.yaml"

    def publish(self) -> None:
        """Let complete extensions take their places. Raises OSError, and ConfigError as `commit` does."""
        self._refuse_links()
        for destination in self._complete:
            destination.publish()

    def commit(self, multirun: str | None = None) -> None:
        """Write the plan; from here on the same command repairs what a kill leaves.

        multirun: Hydra's record of a sweep, to be written where there is none. Raises OSError, and ConfigError where a
        link would lead what is written out of the directory.
        """
        self._refuse_links()
        self.folder.mkdir(parents=True, exist_ok=True)
        plan = {"command": self.command, "runs": self.runs, "stacks": self.planned}
        try:
            self.publish()
            for write in self._before:
                write()
            if multirun is not None and not self.multirun.exists():
                files.write(self.multirun, multirun)
            files.write_sealed(path_of(self.directory), plan)
        except OSError:
            if not self.had_plan:
                self.multirun.unlink(missing_ok=True)
                remove_empty(self.folder)
            raise
        for checkpoints in self._after:
            checkpoints.close()

    def _refuse_links(self) -> None:
        """Raise ConfigError where a link stands in place of a folder that is written into: it may lead anywhere."""
        written = [*self._complete, *(job.destination for item in self.stacks for job in item.jobs)]
        folders = {folder for one in written for folder in (one.directory, one.folder)} | {self.directory}
        inner = {folder / name for folder in folders for name in WRITTEN_INTO} | {self.folder / EXTENDED}
        _raise(foreign.links(inner | (folders - {self.directory})))

    def say(self, jobs: Sequence[Job]) -> None:
        """Print what a command would do."""
        waiting = [job for job in jobs if job.status == "waiting"]
        done = [job.number for job in jobs if job.finished_earlier]
        for note in self.notes:
            print_line(f"note: {note}")
        for line in self.describe():
            print_line(line)
        for job in jobs:
            if job.status == "failed":
                print_line(f"run {job.number} would fail: {describe(job.error or Exception())}")
        if done:
            print_line(f"done before: run{'s' * (len(done) > 1)} {ranges(done)}")
        print_line(f"{len(waiting)} of {len(jobs)} runs would train, in {len(self.stacks)} stacks; nothing was written")

    def describe(self) -> Iterator[str]:
        """A line for each stack that is left to train."""
        for item in self.stacks:
            where = self._places[item.checkpoints.name]
            extended = [self._extended[name] for job in item.jobs if (name := self.name(job)) in self._extended]
            if extended:
                where = Place(extended[0]["epochs"], extended[0]["steps"])
            begin = f"from epoch {where.epoch}, step {where.step}" if where else "from the beginning"
            waiting = [job.number for job in item.waiting]
            done = len(item.jobs) - len(waiting)
            company = f", beside {done} done" if done else ""
            runs = f"run{'s' * (len(waiting) > 1)} {ranges(waiting)}"
            yield f"stack {item.checkpoints.name}: {runs} {begin}{company}"


def _next_number(taken: set[str]) -> str:
    """Raises ConfigError where runs are not numbered."""
    numbers = [int(name) for name in taken if name.isdecimal()]
    if len(numbers) < len(taken):
        raise ConfigError(["hydra.sweep.subdir: two runs would share a folder; number them, or name them by every key"])
    return str(max(numbers) + 1)


def _raise(problems: list[str]) -> None:
    if problems:
        more = [f"and {len(problems) - MAX_PROBLEMS} more like these"] if len(problems) > MAX_PROBLEMS else []
        raise ConfigError([*problems[:MAX_PROBLEMS], *more])
