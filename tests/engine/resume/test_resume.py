"""Going on in a directory: what is done is recognised, the rest ends with the bits of a run never stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.faults import differing, results
from tests.helpers import HEAD, Cli, bits, environment, make_config, rows, scalars, stop_at, summary
from trainer.core import loop
from trainer.engine.resume.checkpoint import Checkpoints
from trainer.record import provenance, run_files

TINY = "data.train_size=100 model.width=6 record.pictures=false"
RUN = f"hydra.run.dir=run {TINY}"
SWEEP = f"-m hydra.sweep.dir=sweep {TINY}"


def bytes_of(folder: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


MIXED = {
    "epochs=4 optimizer=nadam model.dropout=0.3 model.batchnorm=true schedule=cosine": "resume=run",
    "steps=7 accumulate=2 optimizer=sgd optimizer.momentum=0.9 clip_norm=0.1": RUN,
    "epochs=4 model=cnn model.channels=4 model.dropout=0.3 model.batchnorm=true": "resume=run",
    "epochs=8 early_stopping.monitor=verdict data.val_fraction=0.2 model.input_dropout=0.1": "resume=run",
}


@pytest.mark.parametrize("line", MIXED)
def test_interrupted_within_an_epoch_it_ends_with_the_same_bits(
    line: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = TINY if "cnn" not in line else TINY.replace("model.width=6 ", "")
    assert cli(f"hydra.run.dir=whole {tiny} {line}")[0] == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        assert cli(f"hydra.run.dir=run {tiny} {line}")[0] == 130
    assert summary(Path("run"))["steps"] == 5
    again = MIXED[line] if MIXED[line].startswith("resume") else f"{RUN} {line}"
    code, _, err = cli(again)
    assert (code, err) == (0, "")
    for name, source in (("a", "run"), ("b", "whole")):
        Path(name).mkdir()
        Path(source).rename(f"{name}/0")
    assert differing(results(Path("a")), results(Path("b"))) == []
    (one, two) = scalars(Path("a/0")), scalars(Path("b/0"))
    assert one.keys() == two.keys()
    for tag in one:  # one unbroken curve: no gap, no step twice
        np.testing.assert_array_equal(one[tag].steps, two[tag].steps)
        np.testing.assert_array_equal(one[tag].values, two[tag].values)
    assert not list(Path("a/0/.resume").glob("*.pt"))


def test_a_finished_run_is_recognised_and_left_alone(cli: Cli) -> None:
    assert cli(f"{RUN} epochs=2")[0] == 0
    before = bytes_of("run")
    code, out, _ = cli(f"{RUN} epochs=2 checkpoint.minutes=7 data.root=elsewhere")  # which change no result
    assert code == 0
    assert "run: done before; nothing is trained" in out
    assert bytes_of("run") == before


CHANGED = {
    "epochs=2 seed=1": "holds a run of another configuration: seed was 0, is 1; repeat its command (more values of a "
    "key add runs to a sweep), or choose another directory",
    "epochs=1": "epochs was 2, is 1, but a finished run cannot be made shorter; choose another directory",
    "epochs=2 schedule=cosine": "holds a run of another configuration: schedule.name was constant, is cosine; repeat "
    "its command (more values of a key add runs to a sweep), or choose another directory",
}


@pytest.mark.parametrize("line", CHANGED)
def test_what_would_mix_two_configurations_is_refused(line: str, cli: Cli, tmp_path: Path) -> None:
    assert cli(f"{RUN} epochs=2")[0] == 0
    before = bytes_of("run")
    code, out, err = cli(f"{RUN} {line}")
    assert err == f"trainer: 1 problem; {HEAD}\n  {tmp_path / 'run'}: {CHANGED[line]}\n"
    assert (code, out) == (2, "")
    assert bytes_of("run") == before


def test_other_results_under_a_finished_run_are_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(f"{RUN} epochs=1")[0] == 0
    now = provenance.RESULTS
    monkeypatch.setattr(provenance, "RESULTS", now + 1)
    code, _, err = cli(f"{RUN} epochs=1")
    assert code == 2
    assert f"run: was finished with other code or data: results was {now}, is {now + 1}; " in err


def test_a_model_of_the_users_own_is_part_of_the_code(cli: Cli, tmp_path: Path) -> None:
    Path("my_models.py").write_text("from torch.nn import LazyLinear as Net\n")
    config = make_config("model=custom", **{"model._target_": "my_models.Net"})
    sys.path.insert(0, str(tmp_path))  # as the command line does; the fixture puts it back
    before = provenance.code(config)
    Path("my_models.py").write_text("from torch.nn import Linear as Net\n")
    assert provenance.differences(before, provenance.code(config))[0].startswith("my_models was ")


def test_a_failed_run_runs_again(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def fail(*arguments: Any) -> None:
            raise RuntimeError("odd")

        patch.setattr(loop, "train_steps", fail)
        code, out, _ = cli(f"{SWEEP} seed=1,2 epochs=1 hydra.launcher.workers=0")
        assert (code, "0 of 2 runs completed" in out) == (1, True)
    code, out, _ = cli("resume=sweep")
    assert (code, "2 of 2 runs completed" in out) == (0, True)


# ------------------------------------------------------------------ growing


def test_a_sweep_grows_by_seeds_whatever_their_numbers(cli: Cli) -> None:
    one = "hydra.launcher.workers=1"
    assert cli(f"{SWEEP} optimizer=sgd,adam seed=1,2 epochs=1 {one}")[0] == 0
    before = bytes_of("sweep/0") | bytes_of("sweep/3")
    code, out, _ = cli(f"resume=sweep seed=1,2,3 {one} --dry-run")
    assert code == 0
    assert out.splitlines() == [
        "stack 1: runs 4-5 from the beginning",
        "done before: runs 0-3",
        "2 of 6 runs would train, in 1 stacks; nothing was written",
    ]
    code, out, _ = cli("resume=sweep seed=1,2,3")
    assert (code, "6 of 6 runs completed, 4 of them before" in out) == (0, True)
    assert {path: path.read_bytes() for path in before} == before
    runs = json.loads(Path("sweep/sweep.json").read_text())["runs"]
    assert [(run["run"], run["optimizer"], run["seed"]) for run in runs] == [
        (0, "sgd", "1"), (1, "sgd", "2"), (4, "sgd", "3"), (2, "adam", "1"), (3, "adam", "2"), (5, "adam", "3"),
    ]  # fmt: skip
    assert all(summary(Path("sweep") / str(run["run"]))["config"]["seed"] == int(run["seed"]) for run in runs)


def test_runs_that_leave_out_those_that_are_there_are_not_mixed_in(cli: Cli) -> None:
    assert cli(f"{SWEEP} seed=1,2 epochs=1")[0] == 0
    code, _, err = cli(f"{SWEEP} seed=3,4 epochs=1")
    assert code == 2
    assert "sweep/0: holds a run of another configuration: seed was 1, is 3; repeat its command" in err
    assert cli(f"{SWEEP} seed=2 epochs=1")[0] == 0  # fewer is no harm


@pytest.mark.parametrize(
    "line", ["early_stopping.patience=1", pytest.param("model.dropout=0.2 optimizer=nadam", marks=pytest.mark.slow)]
)
def test_more_epochs_are_those_of_a_longer_run(line: str, cli: Cli) -> None:
    """Also of one that has stopped early: it stays where it was, under its new budget."""
    values = f"seed=1,2 optimizer.lr=0.05 {line}"
    assert cli(f"-m hydra.sweep.dir=whole {TINY} {values} epochs=6")[0] == 0
    assert cli(f"{SWEEP} {values} epochs=3")[0] == 0
    assert cli("resume=sweep epochs=6")[0] == 0
    assert differing(results(Path("sweep")), results(Path("whole"))) == []
    longer = scalars(Path("sweep/1"))
    np.testing.assert_array_equal(longer["train/loss"].values, scalars(Path("whole/1"))["train/loss"].values)
    assert longer["test/loss"].steps.tolist() == [rows(Path("sweep/1"))[-1]["step"]]
    assert cli("resume=sweep epochs=6 --dry-run")[1].startswith("done before: runs 0-1\n")


def test_more_epochs_where_the_schedule_depends_on_them(cli: Cli, tmp_path: Path) -> None:
    assert cli(f"{RUN} epochs=2 schedule=cosine")[0] == 0
    said = "schedule=cosine: its learning rate spans 2 epochs, over 4 it would be another"
    _, _, err = cli("resume=run epochs=4")
    assert err.endswith(f"  {tmp_path / 'run'}: epochs was 2, is 4, but {said}; choose another directory\n")
    assert cli(f"hydra.run.dir=other {TINY} steps=3")[0] == 0
    assert "but its budget is steps=3" in cli("resume=other epochs=40")[2]


# ------------------------------------------------------------------ asking


def test_a_dry_run_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    line = f"{SWEEP} seed=1,2 model.depth=1,2 epochs=1 model.dropout=0,2 --dry-run"
    code, out, _ = cli(f"{line} hydra.launcher.workers=1")
    assert code == 0
    assert "run 1 would fail: model.dropout: found 2, expected a number >= 0 and < 1" in out
    assert "4 of 8 runs would train, in 2 stacks; nothing was written" in out
    for workers in (0, 1, 2):  # of stacks in one process, or in so many
        _, out, _ = cli(f"{SWEEP} seed=range(16) step=torch hydra.launcher.workers={workers} --dry-run")
        assert f"16 of 16 runs would train, in {max(1, workers)} stacks; nothing was written" in out
    assert cli(f"{RUN} --dry-run")[1].endswith("1 of 1 runs would train, in 1 stacks; nothing was written\n")
    assert cli(f"{SWEEP} seed=1,2 hydra/launcher=basic --dry-run")[0] == 2
    assert os.listdir(tmp_path) == []


WRONG = {
    "resume=nowhere": "resume=nowhere: no such directory; expected a run's or a sweep's",
    "resume=.": "resume=.: holds no run to resume; expected a run's or a sweep's directory",
    "resume=sweep/0": "resume=sweep/0: is a run of a sweep; resume all of it, resume=sweep",
}


def test_what_cannot_be_resumed(cli: Cli) -> None:
    assert cli(f"{SWEEP} seed=1 epochs=1")[0] == 0
    for line, said in WRONG.items():
        assert cli(line) == (2, "", f"trainer: 1 problem; {HEAD}\n  {said}\n")


def test_a_stack_is_cut_where_a_smaller_one_is_asked_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a kill for want of memory: the plan would keep the stack that was too large."""
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        assert cli(f"{SWEEP} seed=1,2,3 epochs=4 hydra.launcher.workers=0")[0] == 130
    code, out, _ = cli("resume=sweep hydra.launcher.max_members=2")
    assert code == 0
    assert "note: runs 0-2 were one stack; in stacks of at most 2 they start from the beginning" in out
    assert "3 of 3 runs completed" in out


SOMEBODYS = (
    ".hydra/config.yaml",  # another Hydra application's
    "metrics.csv",  # an older version's run, without a plan
    "summary.json",
    "trainer.log",
    "events.out.tfevents.1700000000.host.1.0",
    "checkpoints/best.pt",
    "multirun.yaml",
    "sweep.csv",
    "notes.txt",
    "0/summary.json",
)


@pytest.mark.parametrize("name", SOMEBODYS)
@pytest.mark.parametrize("line", [RUN, f"{SWEEP} seed=1,2"])
def test_a_directory_with_anything_of_somebody_elses_is_refused_and_untouched(name: str, line: str, cli: Cli) -> None:
    path = Path("sweep" if "-m" in line else "run", name)
    path.parent.mkdir(parents=True)
    path.write_text("mine\n")
    before = bytes_of(".")
    code, out, err = cli(f"{line} epochs=1")
    holds = f"holds {path.parts[1]}, but no plan to continue by; nothing was touched, choose another directory"
    assert (code, out, holds in err) == (2, "", True)
    assert bytes_of(".") == before


def test_files_beside_a_runs_own_survive_whatever_becomes_of_it(cli: Cli) -> None:
    """Trained again after damage, extended, resumed: only files that a run knows by name are ever removed."""
    assert cli(f"{RUN} epochs=1")[0] == 0
    others = ("checkpoints/mine.pt", "events.out.tfevents.1.mine", "metrics.csv.old", ".hydra/hydra.yaml", "notes.txt")
    for name in others:
        Path("run", name).write_text("mine")
    Path("run/metrics.csv").write_text("damaged")
    assert "damaged" in cli(RUN + " epochs=1")[1]
    assert cli("resume=run epochs=2")[0] == 0
    assert all(Path("run", name).read_text() == "mine" for name in others)
    assert len(rows(Path("run"))) == 2


def test_a_finished_result_stays_until_its_extension_is_complete(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(f"hydra.run.dir=whole {TINY} epochs=6")[0] == 0
    assert cli(f"{RUN} epochs=2")[0] == 0
    before = {path: content for path, content in bytes_of("run").items() if ".resume" not in path.parts}
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        assert cli("resume=run epochs=6")[0] == 130
    assert {path: path.read_bytes() for path in before} == before
    assert summary(Path("run"))["epochs"] == 2
    assert cli("resume=run epochs=6")[0] == 0
    assert differing(one("run"), one("whole")) == []
    assert len(list(Path("run").glob("events.out.tfevents.*"))) == 1
    assert sorted(os.listdir("run/.resume")) == ["extended", "plan.json"] or os.listdir("run/.resume") == ["plan.json"]


def test_an_extension_killed_while_it_takes_its_place_is_completed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(f"hydra.run.dir=whole {TINY} epochs=4")[0] == 0
    assert cli(f"{RUN} epochs=2")[0] == 0
    replace, moved = os.replace, []

    def die(source: Any, target: Any) -> None:
        if "extended" in str(source) and not str(source).endswith(".part"):
            moved.append(target)
            if len(moved) == 4:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            cli("resume=run epochs=4")
    code, out, _ = cli("resume=run epochs=4")
    assert (code, "done before" in out) == (0, True)
    assert differing(one("run"), one("whole")) == []


def one(directory: str) -> dict[str, Any]:
    """What must be equal of two single runs."""
    folder = Path(directory)
    named = summary(folder)
    kept = {key: named[key] for key in named if key not in ("cost", "files", "trained", "checksum")}
    return {"summary": kept} | bits(folder)


# ------------------------------------------------------------------ checkpoints


def test_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, "3")
    assert store.load([]) == (None, [])
    for step in (1, 2, 3):
        store.save({"epoch": 0, "step": step, "records": {"runs": {}}})
    saved, problems = store.load([])
    assert saved
    assert (saved["epoch"], saved["step"], problems) == (0, 3, [])
    content = bytearray(store.paths[0].read_bytes())
    content[-1] ^= 1
    store.paths[0].write_bytes(content)
    saved, problems = store.load([])
    assert saved
    assert (saved["epoch"], saved["step"]) == (0, 2)
    assert problems == [f"{store.paths[0]}: damaged; its checksum is of other bytes"]
    store.close()
    assert os.listdir(tmp_path) == []


def test_numbers_come_back_from_metrics_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    values = [7, 0.1, 1e-300, float("inf"), float("-inf"), float("nan"), -0.0, 3.0]
    path.write_text("a,b,c,d,e,f,g,h\n" + ",".join(map(repr, values)) + "\n")
    (row,) = run_files.read_rows(path)
    assert [(type(v), repr(v)) for v in row.values()] == [(type(v), repr(v)) for v in values]


def test_checkpoints_by_epochs_and_by_the_minute(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[int] = []
    save = Checkpoints.save

    def note(self: Checkpoints, payload: dict[str, Any]) -> None:
        places.append(payload["step"])
        save(self, payload)

    monkeypatch.setattr(Checkpoints, "save", note)
    lines = (("epochs=6 checkpoint.epochs=2", [4, 8]), ("epochs=500 checkpoint.minutes=0", None), ("epochs=6", []))
    for line, expected in lines:
        places.clear()
        assert cli(f"hydra.run.dir={len(line)} {TINY} {line}")[0] == 0
        assert places == expected if expected is not None else places


@pytest.mark.slow
def test_a_killed_process_and_the_same_command(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "trainer", *f"{RUN} epochs=800 checkpoint.minutes=0.001".split()]
    process = subprocess.Popen(line, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob("run/.resume/stack-*.pt")):
        assert process.poll() is None
    process.kill()
    process.wait()
    done = subprocess.run([*line[:3], "resume=run"], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["epoch"] for row in rows(tmp_path / "run")] == [*range(1, 801)]
    assert "goes on after epoch" in (tmp_path / "run/trainer.log").read_text()
