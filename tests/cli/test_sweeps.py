"""Sweeps through Hydra: what a job's directory holds, cheap composition, failures, callbacks, the table."""

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal.callbacks import Callbacks
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf

from tests import fake_runs
from tests.helpers import Cli
from trainer import evaluate
from trainer.cli import sweep_table
from trainer.cli.compose import Composer
from trainer.cli.config_files import Sources
from trainer.engine.jobs import Job, swept
from trainer.report import vocabulary

TINY = "epochs=1 data.train_size=64 model.width=4 record.pictures=false"
HERE = "hydra.sweep.dir=here"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_a_job_has_the_files_that_hydras_own_launcher_would_write(cli: Cli, tmp_path: Path) -> None:
    sweep_of = f"{TINY} optimizer=sgd,adamw model.dropout=0,0.5 +optimizer.maximize=false seed=3 optimizer.lr=0.01"
    assert cli(f"-m {HERE} {sweep_of}")[0] == 0
    assert cli(f"-m hydra.sweep.dir=there hydra/launcher=basic hydra/sweeper=basic {sweep_of}")[0] == 0
    for number in range(4):
        ours, hydras = (tmp_path / folder / str(number) / ".hydra" for folder in ("here", "there"))
        assert read(ours / "config.yaml") == read(hydras / "config.yaml")
        assert read(ours / "overrides.yaml") == read(hydras / "overrides.yaml")
        assert sorted(path.name for path in ours.iterdir()) == ["config.yaml", "overrides.yaml"]


def test_hydra_composes_once_a_choice_of_files() -> None:
    sources = Sources()
    loader = sources.loader()
    master = loader.load_configuration("config", [], RunMode.MULTIRUN)
    composer = Composer(HydraContext(loader, Callbacks()), master, sources)
    for number, (optimizer, dropout) in enumerate([("sgd", 0.1), ("adam", 0.1), ("sgd", 0.2), ("adam", 0.2)]):
        composed = composer.compose(number, [f"optimizer={optimizer}", f"model.dropout={dropout}"])
        whole = loader.load_configuration("config", composed.overrides, RunMode.RUN)
        assert composed.raw == {k: v for k, v in OmegaConf.to_container(whole).items() if k != "hydra"}  # type: ignore[union-attr]
        ours = composed.whole()
        assert ours.hydra.job.override_dirname == whole.hydra.job.override_dirname
        assert ours.hydra.overrides.task == whole.hydra.overrides.task
        assert ours.hydra.runtime.choices == whole.hydra.runtime.choices
    assert set(composer.bases) == {("optimizer=sgd",), ("optimizer=adam",)}


NAMED = {  # hydra.sweep.subdir, what is swept -> the folders of the runs
    ("${model.depth}_${hydra.job.num}", "model.depth=1,3"): ["1_0", "3_1"],
    ("seed_${seed}", "seed=1,2"): ["seed_1", "seed_2"],
    ("${hydra:job.override_dirname}", "seed=1,2"): [
        "epochs=1,record.pictures=False,seed=1",
        "epochs=1,record.pictures=False,seed=2",
    ],
    ("${optimizer._target_}/${hydra.job.id}", "optimizer=sgd,adam"): ["torch.optim.Adam/1", "torch.optim.SGD/0"],
}


@pytest.mark.parametrize(
    ("subdir", "swept"),
    [pytest.param(*key, marks=[pytest.mark.slow] * (number > 1)) for number, key in enumerate(NAMED)],
)
def test_runs_are_named_as_the_sweep_asks(subdir: str, swept: str, cli: Cli, tmp_path: Path) -> None:
    line = f"-m {HERE} hydra.sweep.subdir='{subdir}' epochs=1 record.pictures=false {swept}"
    code, _, err = cli(line)
    assert (code, err) == (0, "")

    def runs() -> list[str]:
        return sorted(
            str(path.parent.relative_to(tmp_path / "here")) for path in (tmp_path / "here").rglob("metrics.csv")
        )

    assert runs() == NAMED[subdir, swept]
    assert [str(path.parent) for path in tmp_path.rglob("sweep.csv")] == [str(tmp_path / "here")]
    assert "2 of 2 runs completed, 2 of them before" in cli(line)[1]
    code, out, err = cli("resume=here epochs=2")
    assert (code, err) == (0, "")
    assert "2 of 2 runs completed\n" in out
    assert runs() == NAMED[subdir, swept]


def test_equal_runs_are_one(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli(f"-m {HERE} {TINY} seed=2,1,2 optimizer.lr=1e-2,0.01")
    assert code == 0
    assert out.startswith("note: 4 of 6 runs are the same as others, and left out\n")
    assert [row["seed"] for row in csv.DictReader((tmp_path / "here/sweep.csv").open())] == ["2", "1"]


def test_a_sweep_has_one_directory(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli(f"-m {TINY} hydra.sweep.dir='depth_${{model.depth}}' model.depth=1,3")
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert "depth_1/0 does not lie below hydra.sweep.dir=depth_2; a sweep has one directory" in err


def test_the_table_of_functions_has_no_verdicts(cli: Cli) -> None:
    code, out, _ = cli(f"-m {HERE} problem=quadratic optimizer=sgd,adam epochs=5 record.pictures=false")
    assert code == 0
    assert "optimizer  runs      f  distance\n" in out
    assert "validation" not in out


@pytest.mark.slow
@pytest.mark.parametrize("width", ["60", "80", "110"])
def test_a_narrow_table_gives_up_columns_and_no_digits(
    width: str, cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swept = "optimizer=sgd,adam model.dropout=0,0.5 seed=1,2 metrics=[f1,auroc]"
    assert cli(f"-m {HERE} {TINY} {swept}")[0] == 0
    monkeypatch.setenv("COLUMNS", width)
    for out in (cli(f"-m {HERE} {TINY} {swept}")[1], _evaluated(capsys)):
        tables = [line for line in out.splitlines() if line.startswith(("sgd ", "adam ", "0  ", "0.5  "))]
        assert tables
        assert "…" not in "".join(tables)
        assert max(map(len, tables)) <= int(width)
        assert all("±" in line or "too short" in line for line in tables)


def _evaluated(capsys: pytest.CaptureFixture[str]) -> str:
    evaluate.main(["here"])
    return capsys.readouterr().out


def test_a_sweep_ends_with_its_table_and_files(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli(f"-m {HERE} {TINY} model.dropout=0,0.5 seed=1,2")
    assert (code, err) == (0, "")
    header = next(line for line in out.splitlines() if line.startswith("dropout"))
    assert header.split()[:4] == ["dropout", "runs", "val", "loss"]
    assert "4 of 4 runs completed" in out
    runs = json.loads((tmp_path / "here" / "sweep.json").read_text())["runs"]
    assert [(run["run"], run["model.dropout"], run["seed"]) for run in runs] == [
        (0, "0", "1"), (1, "0", "2"), (2, "0.5", "1"), (3, "0.5", "2"),
    ]  # fmt: skip
    for run in runs:
        summary = json.loads((Path(run["directory"]) / "summary.json").read_text())
        assert run["test accuracy"] == summary["test"]["best"]["accuracy"]
        assert run["verdict"] == summary["verdict"]["verdict"]
    with open(tmp_path / "here" / "sweep.csv") as file:
        assert [row["test loss"] for row in csv.DictReader(file)] == [str(run["test loss"]) for run in runs]


def test_metrics_stand_beside_the_loss_in_both_tables_and_files(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli(f"-m {TINY} {HERE} data=line seed=0,1 metrics=[mae,r2]")
    assert (code, err) == (0, "")
    header = next(line for line in out.splitlines() if line.startswith("runs"))
    assert header.split() == [
        "runs",
        "val",
        "loss",
        "train",
        "loss",
        "test",
        "loss",
        "val",
        "mae",
        "val",
        "r2",
        "test",
        "mae",
        "test",
        "r2",
        "verdicts",
    ]
    found = json.loads((tmp_path / "here/0/summary.json").read_text())
    with open(tmp_path / "here/sweep.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert float(first["val mae"]) == found["best"]["val/mae"]
    assert float(first["test r2"]) == found["test"]["best"]["r2"]
    _, out, _ = cli(f"{TINY} data=line metrics=[mae,r2]")
    assert "loss     mae" in out


def test_a_sweep_is_judged_as_its_runs_were(cli: Cli, tmp_path: Path) -> None:
    """Every run once, with the verdict it had at its end; a knob that changes labels is no other split."""
    assert cli(f"-m {HERE} {TINY.replace('epochs=1', 'epochs=6')} data.label_noise=0,0.5 seed=1,2")[0] == 0
    assert evaluate.main(["here", "--json", "found.json"]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["runs"]) == 4
    for run in found["runs"]:
        summary = json.loads((Path(run["path"]) / "summary.json").read_text())
        assert (run["verdict"], run["best_epoch"]) == (summary["verdict"]["verdict"], summary["verdict"]["best_epoch"])
    assert not any("split" in warning for warning in found["warnings"])


FAILING = {
    "model.dropout=0,1.5": (1, "run 1 failed: model.dropout: found 1.5, expected a number >= 0 and < 1"),
    "optimizer=adam,adamm": (1, "run 1 failed: optimizer=adamm: no such option; did you mean adam?"),
    "data=digits,mnist data.root=nowhere": (1, "run 1 failed: data.root: no MNIST in nowhere"),
    "model.dropout=1.5,2": (2, "model.dropout: found 2, expected a number >= 0 and < 1"),
    "model.dropuot=0,0.5": (2, "model.dropuot: no such key; did you mean dropout?"),
    "seed=range(0)": (2, "an empty sweep; give every key at least one value"),
}


@pytest.mark.parametrize("line", FAILING)
def test_a_bad_run_fails_alone_with_its_reason(
    line: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    def no_network(*arguments: Any, **options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", no_network)
    expected_code, message = FAILING[line]
    code, out, err = cli(f"-m {HERE} {TINY} {line}")
    assert code == expected_code
    assert message in (out if code == 1 else err)
    assert "Traceback" not in out + err
    assert "Error executing" not in out + err
    if code == 1:
        assert "1 of 2 runs completed" in out
        assert json.loads((tmp_path / "here" / "0" / "summary.json").read_text())["status"] == "completed"
    else:
        assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("place", ["", "hydra.sweep.dir=.", "hydra.sweep.dir=HERE", "hydra.sweep.dir=HERE/a/b"])
def test_a_sweep_that_is_refused_leaves_nothing(cli: Cli, tmp_path: Path, place: str) -> None:
    code, _, err = cli(f"-m {TINY} model.dropout=1.5,2 {place.replace('HERE', str(tmp_path))}")
    assert code == 2
    assert "model.dropout: found 1.5" in err
    assert [path for path in tmp_path.rglob("*") if path.name != "a"] == []


def test_a_sweep_that_is_refused_leaves_a_link(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    assert cli(f"-m {TINY} model.dropout=1.5,2 hydra.sweep.dir=link")[0] == 2
    assert (tmp_path / "link").is_symlink()
    assert list((tmp_path / "there").iterdir()) == []


def test_a_sweep_of_one_and_one_in_the_same_folder(cli: Cli, tmp_path: Path) -> None:
    assert cli(f"-m {HERE} {TINY}")[0] == 0
    files = [path for path in (tmp_path / "here" / "0").rglob("*") if path.is_file()]
    before = [path.read_bytes() for path in files]
    code, _, err = cli(f"-m {HERE} {TINY} seed=5")
    assert code == 2
    assert "here/0: holds a run of another configuration: seed was 0, is 5; repeat its command" in err
    assert [path.read_bytes() for path in files] == before


def test_a_bad_run_ends_no_later_batch(cli: Cli) -> None:
    code, out, _ = cli(f"-m {HERE} hydra.sweeper.max_batch_size=1 {TINY} model.dropout=1.5,0")
    assert code == 1
    assert "1 of 2 runs completed" in out


def test_another_launcher_learns_that_a_job_failed(cli: Cli) -> None:
    code, _, err = cli(f"-m {HERE} hydra/launcher=basic hydra/sweeper=basic {TINY} model.dropout=0,1.5")
    assert code == 2
    assert "what it had recorded is in here" in err
    assert "model.dropout: found 1.5, expected a number >= 0 and < 1" in err


OTHERS = [
    pytest.param("basic", "hydra"),
    pytest.param("joblib", "hydra_plugins.hydra_joblib_launcher", marks=pytest.mark.slow),
    pytest.param("submitit_local", "hydra_plugins.hydra_submitit_launcher", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "package"), OTHERS)
def test_other_launchers_take_what_is_left_a_job_a_run(name: str, package: str, cli: Cli, tmp_path: Path) -> None:
    """A bad run fails alone; done runs are done, whoever trained them; the bits and the table are those of a stack."""
    pytest.importorskip(package)
    launcher = f"hydra/launcher={name}"
    code, out, _ = cli(f"-m {HERE} {launcher} {TINY} seed=1,2 model.dropout=0.2,1.5")
    assert code == 1
    assert "2 of 4 runs completed" in out
    code, out, _ = cli(f"resume=here {launcher} seed=1,2,3 model.dropout=0.2")
    assert code == 0
    assert "3 of 3 runs completed, 2 of them before" in out
    assert cli(f"-m hydra.sweep.dir=stack {TINY} seed=1,2,3 model.dropout=0.2")[0] == 0
    rows = {folder: read(tmp_path / folder / "sweep.json")["runs"] for folder in ("here", "stack")}
    assert [Path(row["directory"]).name for row in rows["here"]] == ["0", "2", "3"]
    for ours, theirs in zip(rows["stack"], rows["here"], strict=True):
        assert {**ours, "run": 0, "directory": ""} == {**theirs, "run": 0, "directory": ""}
    code, _, err = cli("resume=here")
    assert code == 2
    assert f"{launcher}, which may name code to run; if you trust it, type it again here" in err
    assert "3 of them before" in cli("resume=here hydra/launcher=stack")[1]


class Spy(Callback):
    """What Hydra's callbacks are told."""

    seen: list[tuple[str, int, str]] = []  # noqa: RUF012

    def on_job_start(self, config: Any, **_: Any) -> None:
        self.seen.append(("start", config.hydra.job.num, config.model.dropout))

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        self.seen.append(("end", config.hydra.job.num, job_return.status.name))

    def on_multirun_end(self, **_: Any) -> None:
        self.seen.append(("over", 0, ""))


OVER = ("over", 0, "")


def test_callbacks_see_every_job(cli: Cli) -> None:
    Spy.seen.clear()
    line = f"-m {HERE} {TINY} +hydra.callbacks.spy._target_=tests.cli.test_sweeps.Spy model.dropout=0,0.25"
    assert cli(line)[0] == 0
    assert [event for event in Spy.seen if event[0] == "start"] == [("start", 0, 0), ("start", 1, 0.25)]
    assert [event for event in Spy.seen if event[0] == "end"] == [("end", 0, "COMPLETED"), ("end", 1, "COMPLETED")]


def test_callbacks_see_a_job_that_is_refused(cli: Cli) -> None:
    Spy.seen.clear()
    assert cli(f"-m {HERE} {TINY} +hydra.callbacks.spy._target_=tests.cli.test_sweeps.Spy model.dropout=0,1.5")[0] == 1
    assert Spy.seen == [("start", 0, 0), ("start", 1, 1.5), ("end", 0, "COMPLETED"), ("end", 1, "FAILED"), OVER]


def test_two_sweeps_in_one_second_have_folders_of_their_own(cli: Cli, tmp_path: Path) -> None:
    for _ in range(2):
        assert cli(f"-m {TINY}")[0] == 0
    assert len(list((tmp_path / "outputs" / "sweeps").glob("*/*/0/summary.json"))) == 2


def job(number: int, overrides: str, loss: float, status: str = "completed") -> Job:
    summary = {"best": {"val/loss": loss, "val/accuracy": 0.5}, "verdict": {"verdict": "healthy"}}
    return Job(number, Path(str(number)), overrides.split(), status=status, summary=summary)


def test_the_table_groups_over_seeds_best_first_with_the_swept_knobs() -> None:
    jobs = [
        job(0, "optimizer=sgd epochs=3 seed=0", 0.4),
        job(1, "optimizer=sgd epochs=3 seed=1", 0.6),
        job(2, "optimizer=adam epochs=3 seed=0", 0.1),
        job(3, "optimizer=adam epochs=3 seed=1", 0.3),
        job(4, "optimizer=nadam epochs=3 seed=0", float("nan")),
    ]
    assert swept(jobs) == ["optimizer", "seed"]
    table = sweep_table.table(jobs)
    cells = [list(column.cells) for column in table.columns]
    assert [column.header for column in table.columns][:3] == ["optimizer", "runs", "val loss"]
    assert cells[0] == ["adam", "sgd", "nadam"]
    assert cells[2] == [
        "0.2000 ± 1.3",
        "0.5000 ± 1.3",
        "nan",
    ]  # 12.7 times the stdev of 0.1 and 0.3, over the root of 2
    assert sweep_table.captions(jobs) == [vocabulary.INTERVAL]


def test_the_table_and_evaluate_mean_the_same_by_plus_minus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = []
    for number, (dropout, seed) in enumerate(itertools.product((0.0, 0.5), range(3))):
        train, val = fake_runs.curves(30, 1.0 - dropout, number)
        config = {"seed": seed, "model": {"dropout": dropout}}
        folder = fake_runs.our_run(tmp_path / str(number), config, train, val, events=False)
        summary = json.loads((folder / "summary.json").read_text())
        jobs.append(
            Job(number, folder, [f"model.dropout={dropout}", f"seed={seed}"], status="completed", summary=summary)
        )
    table = sweep_table.table(jobs)
    columns = {str(column.header): list(column.cells) for column in table.columns}
    assert evaluate.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for name in ("val loss", "test accuracy"):
        for cell in columns[name]:
            assert "±" in str(cell)
            assert str(cell) in printed
    assert sweep_table.captions(jobs) == [vocabulary.INTERVAL]
    assert vocabulary.INTERVAL in printed


def test_failed_runs_are_named_in_ranges() -> None:
    jobs = [job(number, f"seed={number}", 0.1, "interrupted") for number in (0, 1, 2, 5)]
    assert sweep_table.troubles(jobs) == ["runs 0-2, 5 interrupted  (seed=0 ...)"]
