"""What every engine promises: the same sweep, the same bits, one bad run alone, done runs done, Ctrl-C ends it all."""

import dataclasses
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import slurm_cluster
from tests.helpers import ROOT, Cli, bits, environment, summary
from trainer.cli import launchers
from trainer.config import ConfigError
from trainer.engine import clusters
from trainer.engine.task import Task

ENGINES = {
    "local": "hydra.launcher.workers=2",
    "submitit": "hydra/launcher=slurm hydra.launcher.cluster=local hydra.launcher.jobs=2",
    "dask": "hydra/launcher=dask hydra.launcher.jobs=2",
    "ray": "hydra/launcher=ray hydra.launcher.jobs=2",
    "slurm": "hydra/launcher=slurm hydra.launcher.jobs=2 hydra.launcher.mem_gb=1",
}
PACKAGES = {"submitit": "submitit", "dask": "distributed", "ray": "ray", "slurm": "submitit"}
SWEEP = "-m epochs=2 model.depth=1,2 seed=1,2 model.dropout=0.2,1.5 data.train_size=64 record.pictures=false"
LONG = "-m epochs=30000 model.depth=1,2 data.train_size=64 record.pictures=false checkpoint.minutes=0.01"
LONGEST_S = 120.0


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    if slurm_cluster.WHY_NOT:
        pytest.skip(slurm_cluster.WHY_NOT)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, slurm_cluster.started(Path(folder)) as variables:
        yield variables


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """An engine's name, and the environment in which its commands find it."""
    name = request.param
    if name in PACKAGES and find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed")
    more = request.getfixturevalue("slurm") if name == "slurm" else {}
    return name, environment() | more | {"RAY_DISABLE_MEMORY_MONITOR": "1"}


def command(line: str, folder: Path, variables: dict[str, str]) -> subprocess.Popen[str]:
    call = [sys.executable, "-m", "trainer", *shlex.split(line)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        call, cwd=folder, env=variables, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The sweep as this machine trains it."""
    folder = tmp_path_factory.mktemp("here")
    command(f"{SWEEP} {ENGINES['local']} hydra.sweep.dir=sweep", folder, environment()).wait(LONGEST_S)
    return bits(folder / "sweep")


@pytest.mark.slow
def test_the_same_sweep(engine: tuple[str, dict[str, str]], here: dict[str, bytes], tmp_path: Path) -> None:
    """Bits, table, files, exit code, a bad run that fails alone; then nothing is trained again."""
    name, variables = engine
    line = f"{SWEEP} {ENGINES[name]} hydra.sweep.dir=sweep"
    ran = command(line, tmp_path, variables)
    out, _ = ran.communicate(timeout=LONGEST_S)
    assert ran.returncode == 1, out
    assert len(here) == 4 * 3
    assert bits(tmp_path / "sweep") == here
    assert "4 of 8 runs completed" in out
    assert "model.dropout" in out
    rows = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["runs"]
    assert [row["status"] for row in rows].count("completed") == 4
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").glob("*/metrics.csv")}
    again = command("resume=sweep model.dropout=0.2", tmp_path, variables)
    out, _ = again.communicate(timeout=LONGEST_S)
    assert again.returncode == 0, out
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.slow
def test_ctrl_c_ends_what_runs_with_a_checkpoint(engine: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    name, variables = engine
    running = command(f"{LONG} {ENGINES[name]} hydra.sweep.dir=sweep", tmp_path, variables)
    patience = time.monotonic() + LONGEST_S
    while not list((tmp_path / "sweep").glob(".resume/stack-*.pt")):
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < patience
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGINT)
    out, _ = running.communicate(timeout=LONGEST_S)
    assert running.returncode == 128 + signal.SIGINT, out
    assert {summary(tmp_path / "sweep" / run)["status"] for run in "01"} == {"interrupted"}
    assert len(list((tmp_path / "sweep").glob(".resume/stack-?.pt"))) == 2
    assert not list((tmp_path / "sweep").glob(".resume/jobs/*/ticket.json"))


@pytest.mark.slow
def test_left_alone_and_found_again(slurm: dict[str, str], tmp_path: Path) -> None:
    """detach=true returns at once; another command attaches, and submits nothing twice."""
    variables = environment() | slurm
    line = f"{LONG.replace('30000', '300')} {ENGINES['slurm']} hydra.sweep.dir=sweep"
    sent = command(f"{line} hydra.launcher.detach=true", tmp_path, variables)
    out, _ = sent.communicate(timeout=LONGEST_S)
    assert sent.returncode == 0, out
    assert "sent      slurm jobs" in out
    tickets = [json.loads(path.read_text())["job"] for path in (tmp_path / "sweep").glob(".resume/jobs/*/ticket.json")]
    refused = command("resume=sweep hydra/launcher=stack", tmp_path, variables)
    out, _ = refused.communicate(timeout=LONGEST_S)
    assert refused.returncode == 2
    assert "were sent to slurm as job" in out
    watched = command("resume=sweep hydra.launcher.detach=false", tmp_path, variables)
    out, _ = watched.communicate(timeout=LONGEST_S)
    assert watched.returncode == 0, out
    assert "2 of 2 runs completed" in out
    queue = ["scontrol", "--oneliner", "show", "jobs"]
    known = subprocess.run(queue, env=variables, capture_output=True, text=True, check=True).stdout
    shown = {f"{line.split('ArrayJobId=')[1].split()[0]}" for line in known.splitlines() if str(tmp_path) in line}
    assert shown == {ticket.split("_")[0] for ticket in tickets}


@pytest.mark.slow
def test_what_another_command_sent_to_dask_is_watched_to_its_end(tmp_path: Path) -> None:
    """The scheduler tells of a task's end to the client alone that sent it."""
    distributed = pytest.importorskip("distributed")
    once = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.LocalCluster(**once) as cluster:
        address = f"hydra.launcher.address={cluster.scheduler_address}"
        line = f"{LONG.replace('30000', '6000')} hydra/launcher=dask {address}"
        sent = command(f"{line} hydra.launcher.detach=true hydra.sweep.dir=sweep", tmp_path, environment())
        out, _ = sent.communicate(timeout=LONGEST_S)
        assert (sent.returncode, "sent      dask job" in out) == (0, True), out
        watched = command(f"resume=sweep {address} hydra.launcher.detach=false", tmp_path, environment())
        out, _ = watched.communicate(timeout=LONGEST_S)
    assert watched.returncode == 0, out
    assert "2 of 2 runs completed" in out
    assert "before" not in out  # they still ran when it began to watch


BAD = {
    "epochs=1 hydra/launcher=slurm": "hydra/launcher=slurm: sends the runs of a sweep; type -m too, or leave it out",
    "-m seed=1,2 hydra/launcher=ray hydra.launcher.detach=true": "hydra.launcher.detach: Ray ends the tasks",
    "-m seed=1,2 hydra/launcher=dask hydra.launcher.jobs=0": "hydra.launcher.jobs: found 0, expected",
    "-m seed=1,2 hydra/launcher=dask hydra.launcher.threads=x": "hydra.launcher.threads: found x, expected a whole",
    "-m seed=1,2 hydra/launcher=slurm +hydra.launcher.job=2": "hydra.launcher.job: no such key; did you mean jobs?",
    "-m seed=1,2 hydra/launcher=slurm hydra.launcher.cluster=locl": "hydra.launcher.cluster: found locl, expected one",
    "-m seed=1,2 hydra.launcher.workers=abc": "hydra.launcher.workers: found abc, expected a whole number of processes",
    "-m seed=1,2 hydra.launcher.jobs=2": "hydra.launcher.jobs: no such key; choose from max_members, workers",
}


@pytest.mark.parametrize("line", BAD)
def test_what_cannot_be_sent(line: str, cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli(line)
    assert code == 2
    assert BAD[line] in err
    assert not (tmp_path / "outputs").exists()


def test_the_launchers_keys_are_those_of_their_files() -> None:
    for name, kind in launchers.KINDS.items():
        text = (ROOT / "conf" / "hydra" / "launcher" / f"{name}.yaml").read_text(encoding="utf-8")
        keys = {line.partition(":")[0] for line in text.splitlines() if not line.startswith("#")}
        assert keys - {"_target_", "engine"} == {field.name for field in dataclasses.fields(kind)}


def test_a_busy_slurm_is_no_empty_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was submitted a moment ago waits, until squeue answers that it does not."""
    pytest.importorskip("submitit")
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho Submitted batch job 7\n")
    (tmp_path / "srun").write_text("#!/bin/sh\n")  # without which submitit believes in no Slurm
    (tmp_path / "squeue").write_text("#!/bin/sh\nexit 1\n")
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    slurm = clusters.Slurm(tmp_path / "jobs", "slurm", 3)
    (job,) = slurm.submit([Task([], tmp_path, "")])
    assert not job.done()
    with pytest.raises(ConfigError, match="squeue"):
        slurm.attach("7")
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 7\n")
    slurm.asked = -math.inf
    job.job.paths.result_pickle.touch()
    assert (
        not job.done()
    )  # at its time limit it asked to be queued again, and was killed while it waited for the answer
    (tmp_path / "squeue").write_text("#!/bin/sh\n")
    slurm.asked = -math.inf
    assert job.done()


def test_a_node_that_does_not_see_the_folder_is_told_of_at_once(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    for name, does in {"sbatch": "exit 1", "srun": "echo node7"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    code, _, err = cli("-m seed=1,2 hydra/launcher=slurm hydra.sweep.dir=sweep")
    assert code == 2
    assert f"{tmp_path}: the node node7 does not see it; use a shared folder" in err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["slurm", "dask", "ray"], indirect=True)
def test_the_manuals_command(engine: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """As it is written."""
    name, variables = engine
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8").replace("\\\n", "")
    (line,) = [line for line in text.splitlines() if line.startswith("python -m trainer -m") and f"={name} " in line]
    ran = command(line.removeprefix("python -m trainer "), tmp_path, variables)
    out, _ = ran.communicate(timeout=LONGEST_S)
    assert ran.returncode == 0, out
    assert "16 of 16 runs completed" in out


@pytest.mark.slow
def test_slurm_refuses_in_its_own_words(slurm: dict[str, str], tmp_path: Path) -> None:
    line = "-m epochs=1 seed=1,2 hydra/launcher=slurm hydra.launcher.partition=nope hydra.sweep.dir=sweep"
    ran = command(line, tmp_path, environment() | slurm)
    out, _ = ran.communicate(timeout=LONGEST_S)
    assert ran.returncode == 2
    assert "hydra/launcher=slurm: sbatch: error: invalid partition specified: nope" in out
    assert not (tmp_path / "sweep").exists()
