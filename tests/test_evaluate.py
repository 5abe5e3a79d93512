"""The command: what it prints, writes and returns, and what it says about bad input."""

import io
import itertools
import json
import math
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests import fake_runs
from trainer.evaluate import evaluate, main
from trainer.report import html
from trainer.report.terminal import print_tables

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_runs.sweep(tmp_path_factory.mktemp("sweeps") / "s", seeds=3, events=False)


def strict(text: str) -> dict:
    """JSON without NaN and Infinity, which are no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_a_sweep(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep), "--json", str(tmp_path / "e.json"), "--html", str(tmp_path / "r.html")]) == 0
    printed = capsys.readouterr()
    assert "54 runs" in printed.out
    assert "report: file://" in printed.out
    found = strict((tmp_path / "e.json").read_text())
    assert len(found["runs"]) == 54
    assert {"path", "name", "verdict", "best_epoch", "evidence", "health", "config"} <= set(found["runs"][0])
    assert len(found["groups"]) == 18
    effect = found["effects"][0]
    assert (effect["knob"], effect["measure"], effect["claimed"]) == ("model.dropout", "best_val_loss", True)
    assert {run["verdict"] for run in found["runs"] if run["config"]["model.dropout"] == 0.0} == {"overfit"}
    assert {run["verdict"] for run in found["runs"] if run["config"]["model.dropout"] == 0.5} == {"healthy"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.json", "r.html"]


def test_what_a_run_came_to_after_its_last_epoch(tmp_path: Path) -> None:
    """Means of the last tenth of the epochs, as the verdict's losses are; test results as the summary has them."""
    train, val = fake_runs.curves(30, 0.5, 0)
    folder = fake_runs.our_run(tmp_path / "0", {"seed": 0}, train, val, events=False)
    fake_runs.other_run(tmp_path / "other", ("train_loss", "val_loss"), train, val)
    ours, other = evaluate([tmp_path])[0]["runs"]
    last = json.loads((folder / "summary.json").read_text())["test"]["last"]
    found = ours["measures"]
    assert found["final_train_loss"] == pytest.approx(train[27:].mean(), rel=1e-12)
    assert found["final_train_loss"] == pytest.approx(ours["evidence"]["final_train_loss"], rel=1e-12)
    assert found["final_train_accuracy"] == pytest.approx(np.exp(-train[27:]).mean(), rel=1e-12)
    assert found["final_val_accuracy"] == pytest.approx(np.exp(-val[27:]).mean(), rel=1e-12)
    assert (found["final_test_loss"], found["final_test_accuracy"]) == (last["loss"], last["accuracy"])
    assert found["test_loss"] < found["final_test_loss"]
    assert set(other["measures"]) == {"gap", "best_val_loss", "final_val_loss", "final_train_loss"}


def test_json_on_standard_output_is_alone_there(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep), "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert len(strict(printed.out)["runs"]) == 54
    assert "54 runs" in printed.err


def test_a_single_run_is_told_in_a_sentence(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep / "0")]) == 0
    printed = capsys.readouterr().out
    assert "0: validation loss" in printed
    assert "use all runs" not in printed


def test_a_narrow_terminal_gets_fewer_columns(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "76")
    monkeypatch.setenv("TERM", "dumb")
    screen = Terminal()
    print_tables(evaluate([sweep])[0], screen)
    header = next(line for line in screen.getvalue().splitlines() if line.startswith("run"))
    assert "…" not in header
    assert "gap" in header
    assert "last val" not in header


def test_fail_on(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep), "--fail-on", "overfit"]) == 1
    assert main([str(sweep), "--fail-on", "diverged", "--fail-on", "underfit"]) == 0
    assert main([str(sweep / "17"), "--fail-on", "overfit"]) == 0


def test_requirements(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind, met and broken; the last lines say which, and the JSON and JUnit's XML have them."""
    met = ["--max-gap", "5", "--min", "val_accuracy=0.1", "--max", "best_val_loss=9", "--baseline", str(sweep)]
    assert main([str(sweep), *met]) == 0
    assert capsys.readouterr().out.count("required: ") == 3 + 18
    assert main([str(sweep), "--max-gap", "0.3"]) == 1
    assert "required: gap (validation − training loss) at most 0.3000: broken by " in capsys.readouterr().out
    files = ["--json", str(tmp_path / "e.json"), "--junit", str(tmp_path / "j.xml")]
    assert main([str(sweep), "--min", "val_accuracy=0.99", "--fail-on", "diverged", *files]) == 1
    bound, verdict = sorted(strict((tmp_path / "e.json").read_text())["requirements"], key=lambda one: one["name"])
    assert (bound["passed"], len(bound["broken"]), verdict["passed"]) == (False, 54, True)
    suites = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suites.get("tests"), suites.get("failures")) == ("56", "55")


def test_worse_than_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, worse in (("old", 0.0), ("new", 0.2)):
        for seed in range(3):
            train, val = fake_runs.curves(30, 0.0, seed)
            val = val + worse + 0.001 * (name == "new") * seed
            fake_runs.our_run(tmp_path / name / str(seed), {"seed": seed, "epochs": 30}, train, val, events=False)
    assert main([str(tmp_path / "new"), "--baseline", str(tmp_path / "old")]) == 1
    assert "all runs: test accuracy is worse than in the baseline: " in capsys.readouterr().out
    assert main([str(tmp_path / "old"), "--baseline", str(tmp_path / "new")]) == 0


def test_all_outputs(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"json": "e.json", "html": "r.html", "markdown": "e.md", "latex": "e.tex", "csv": "e.csv", "junit": "j.xml"}
    arguments = [part for option, name in names.items() for part in (f"--{option}", str(tmp_path / name))]
    assert main([str(sweep), *arguments, "--figures", str(tmp_path / "figures")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names.values(), "figures"])
    assert len(list((tmp_path / "figures").iterdir())) == 8
    answer = strict((tmp_path / "e.json").read_text())["answer"]["text"]
    assert (tmp_path / "e.md").read_text().startswith(answer[:20])
    assert main([str(sweep), "--markdown", "-", "--figures", str(tmp_path / "figures")]) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith((tmp_path / "e.md").read_text())
    assert "54 runs" in printed.err


def test_the_order_of_paths_changes_nothing(sweep: Path) -> None:
    def without_paths(paths):
        found, _ = evaluate(paths)
        return {key: value for key, value in found.items() if key not in ("paths", "runs")}, sorted(
            (run["path"], run["verdict"]) for run in found["runs"]
        )

    parts = sorted(sweep.iterdir())
    assert without_paths(parts) == without_paths(parts[::-1])


def test_runs_of_a_sweep_that_were_refused_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fake_runs.sweep(tmp_path / "s", seeds=1, events=False)
    refused = [{"run": 18 + i, "status": "failed", "epochs": 0, "error": "model.init: found xavier"} for i in range(3)]
    judged = [{"run": i, "status": "completed", "epochs": 30, "error": None} for i in range(18)]
    (folder / "sweep.json").write_text(json.dumps({"runs": [*judged, *refused]}))
    main([str(folder)])
    said = " ".join(capsys.readouterr().out.split())
    assert f"left out: {folder}: 3 of 21 runs did not run: model.init: found xavier" in said


def test_functions_of_two_variables_are_compared_by_their_values(tmp_path: Path) -> None:
    for number, (optimizer, value) in enumerate(itertools.product(("sgd", "adam"), (0.0, 0.1, 0.2))):
        data = {"name": "point", "val_fraction": 0.0}
        config = {"seed": number % 3, "data": data, "optimizer": {"name": optimizer}}
        train = np.linspace(3, 1 + value + (optimizer == "sgd"), 10)
        run = fake_runs.our_run(tmp_path / str(number), config, train, train, events=False)
        rows = [f"{epoch},{loss}" for epoch, loss in enumerate(train, 1)]
        (run / "metrics.csv").write_text("\n".join(["epoch,eval/train_loss", *rows]))
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps(summary | {"test": {"last": {"loss": float(train[-1])}}}))
    found, _ = evaluate([tmp_path])
    assert found["criterion"] == "function_value"
    assert "Function value is 1 lower at optimizer.name=adam than at sgd" in found["answer"]["text"]
    assert "selection" not in {one["kind"] for one in found["warnings"]}


def test_unusual_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One epoch; NaN and infinity in the middle; all NaN; constant; negative: each is judged; the JSON is strict."""
    train, val = fake_runs.curves(30, 0.0, 0)
    holes = val.copy()
    holes[10:12] = math.nan, math.inf
    odd = {
        "one": (train[:1], val[:1], {"too_short"}),
        "holes": (train, holes, {"healthy"}),
        "nan": (np.full(30, math.nan), np.full(30, math.nan), {"diverged"}),
        "constant": (np.ones(30), np.ones(30), {"underfit", "healthy"}),
        "negative": (train - 9, val - 9, {"healthy"}),
    }
    for seed, (name, (a, b, _)) in enumerate(odd.items()):
        fake_runs.our_run(tmp_path / name, {"seed": seed, "lr": 0.1}, a, b, events=False)
    assert main([str(tmp_path), "--json", str(tmp_path / "e.json"), "--html", str(tmp_path / "r.html")]) == 0
    found = strict((tmp_path / "e.json").read_text())
    for run in found["runs"]:
        assert run["verdict"] in odd[run["name"]][2], run["name"]


def test_a_damaged_summary(tmp_path: Path) -> None:
    train, val = fake_runs.curves(30, 0.5, 0)
    for i, text in enumerate(
        ["{", "[]", '{"test": "x", "provenance": [], "epochs": "y"}', '{"test": {"best": {"loss": "?"}}}']
    ):
        folder = fake_runs.our_run(tmp_path / str(i), {"seed": 0}, train, val, events=False)
        (folder / "summary.json").write_text(text)
    found, _ = evaluate([tmp_path])
    assert [run["verdict"] for run in found["runs"]] == ["overfit"] * 4


def test_without_validation_split_nothing_is_called_overfit(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,eval/train_loss\n" + "".join(f"{i},{i},{1 / i}\n" for i in range(1, 30))
    )
    found, _ = evaluate([tmp_path])
    assert found["runs"][0]["verdict"] in ("no_validation", "underfit")


EVIL = "[red]x[/red]\x1b[2J\n:smile:\u202e"
SHOWN = r"[red]x[/red]\x1b[2J\n:smile:\u202e"


def test_names_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of folders, keys, values, states, findings and tags, in tables, sentences, warnings and problems."""
    train, val = fake_runs.curves(30, 0.5, 0)
    for i, value in enumerate([EVIL, f"{EVIL}2"]):
        run = fake_runs.our_run(tmp_path / EVIL / str(i), {"seed": 0, EVIL: value}, train, val, events=False)
        finding = {"finding": EVIL, "where": EVIL, "step": 1, "sentence": EVIL, "why": EVIL, "try": EVIL}
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps(summary | {"health": [finding], "status": EVIL}))
    fake_runs.other_run(tmp_path / EVIL / "tags", (f"a{EVIL}", f"b{EVIL}"), train, val)
    (tmp_path / EVIL / "table.csv").mkdir()
    (tmp_path / EVIL / "bad").mkdir()
    (tmp_path / EVIL / "bad" / "metrics.csv").mkdir()
    (tmp_path / EVIL / "bad" / "metrics.csv").rmdir()
    (tmp_path / EVIL / "bad" / "metrics.csv").symlink_to("gone")
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    for where in (
        "status",
        f"{SHOWN}=",
        f"{SHOWN}/tags: found the tags a{SHOWN}",
        f"{SHOWN}/bad/metrics.csv",
        f"{SHOWN} (",
    ):
        assert where in printed.replace("\n", ""), where


def test_names_cannot_command_the_terminal_in_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / EVIL)]) == 2
    assert main([str(tmp_path), "--json", str(tmp_path / EVIL / "e.json")]) == 2
    with pytest.raises(SystemExit):
        main([str(tmp_path), f"--{EVIL}"])
    printed = capsys.readouterr().err
    assert printed.count(SHOWN) >= 4
    assert printed.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["found no PATH, expected a run, a sweep or a folder above them"]),
        (["nowhere"], ["nowhere: no such file or folder"]),
        (["."], ["found nothing", "expected folders with metrics.csv"]),
        ([".", "--json", "no/e.json"], ["no/e.json: there is no folder no", "mkdir -p no"]),
        ([".", "--html", "."], [".: is a folder; give the file's name"]),
        ([".", "--latex", "no/e.tex"], ["no/e.tex: there is no folder no"]),
        ([".", "--figures", "no/figures"], ["no/figures: there is no folder no; make it first: mkdir -p no"]),
        ([".", "--figures", __file__], [f"{__file__}: is no folder; name one for the files to be put into"]),
        ([".", "--csv", "a", "--junit", "./a"], ["--csv and --junit both name ./a; give each a place of its own"]),
        ([".", "--json", "-", "--csv", "-"], ["--json and --csv both name the standard output"]),
        (["nowhere", "neither"], ["nowhere: no such", "neither: no such"]),
    ],
)
def test_bad_input_is_one_message_and_code_2(
    arguments: list[str], said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert not printed.out
    for part in said:
        assert part in printed.err


def test_requirements_that_cannot_be_tested(sweep: Path, tmp_path: Path, capsys) -> None:
    target = ["--json", str(tmp_path / "e.json")]
    for arguments, said in (
        (["--min", "sharpness=1"], "--min: sharpness: no run has this measure; expected one of best_val_accuracy, "),
        (["--baseline", str(tmp_path / "no")], f"{tmp_path / 'no'}: no such file or folder"),
        (["--baseline", str(sweep / "0" / ".hydra")], "found 2 files, none of them a run's that can be judged"),
    ):
        assert main([str(sweep), *arguments, *target]) == 2
        assert said in capsys.readouterr().err
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["x", "--fail-on", "sad"],
        ["x", "--nonsense"],
        ["x", "--max-gap", "wide"],
        ["x", "--max-gap", "nan"],
        ["x", "--min", "val_accuracy"],
        ["x", "--min", "val_accuracy=high"],
        ["x", "--max", "=1"],
    ],
)
def test_bad_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_the_command_starts_without_torch(sweep: Path) -> None:
    program = (
        "import sys; from trainer.evaluate import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'tensorflow', 'tensorboard', 'matplotlib', 'scipy.stats', 'hydra', 'omegaconf'}; "
        "heavy &= set(sys.modules); "
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(sweep)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_unpickled_or_called(sweep: Path, tmp_path: Path) -> None:
    """Tags, classes and pickles that would write a file, in every file that is read, and in those that are not."""
    shutil.copytree(sweep / "0", tmp_path / "in" / "0")
    call = f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{tmp_path}/called']]"
    bomb = pickle.dumps(Bomb(str(tmp_path / "called")))
    for name in (".hydra/config.yaml", ".hydra/overrides.yaml", "hparams.yaml", "multirun.yaml"):
        (tmp_path / "in" / "0" / name).write_text(f"_target_: os.mkdir\npath: {tmp_path}/called\na: {call}\n")
    for name in ("checkpoints/best.pt", "events.out.tfevents.1700000000.x", "other.csv", "x.pkl"):
        (tmp_path / "in" / "0" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / "0" / name).write_bytes(bomb)
    (tmp_path / "in" / "0" / "summary.json").write_bytes(bomb)
    assert main([str(tmp_path / "in"), "--html", str(tmp_path / "r.html")]) == 0
    assert not (tmp_path / "called").exists()
    pickle.loads(bomb)  # it would have worked
    assert (tmp_path / "called").exists()


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


# ------------------------------------------------------------------ where the output goes


def run_command(arguments: list[str], shell: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell would, with its streams redirected; a full disk is a limit on file sizes."""
    command = shlex.join([sys.executable, "-m", "trainer.evaluate", *arguments])
    return subprocess.run(
        ["bash", "-c", shell.replace("COMMAND", command)], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("COMMAND > /dev/full", "the standard output takes no more: No space left on device\n"),
        ("COMMAND --json - > /dev/full", "the standard output takes no more: No space left on device\n"),
        ("COMMAND >&-", "the standard output is closed: nothing is printed there\n"),
        ("COMMAND >&- 2>&-", ""),
        ("COMMAND > /dev/full 2> /dev/full", ""),
        ("COMMAND | true; exit ${PIPESTATUS[0]}", "the standard output takes no more: Broken pipe\n"),
        ("(ulimit -f 1; COMMAND --json OUT/e.json)", "OUT/e.json: cannot be written: File too large\n"),
        ("(ulimit -f 9; COMMAND --html OUT/r.html)", "OUT/r.html: cannot be written: File too large\n"),
    ],
)
def test_an_output_that_takes_nothing_is_one_sentence_and_code_2(
    shell: str, said: str, sweep: Path, tmp_path: Path
) -> None:
    done = run_command([str(sweep / "0"), str(sweep / "1")], shell.replace("OUT", str(tmp_path)))
    assert done.returncode == 2
    assert done.stderr == said.replace("OUT", str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_tables_that_cannot_be_printed_cost_no_file(sweep: Path, tmp_path: Path) -> None:
    targets = ["--json", str(tmp_path / "e.json"), "--html", str(tmp_path / "r.html")]
    assert run_command([str(sweep / "0"), *targets], "COMMAND > /dev/full").returncode == 2
    assert strict((tmp_path / "e.json").read_text())["runs"]
    assert (tmp_path / "r.html").stat().st_size > 10_000
    done = run_command([str(sweep / "0"), "--json", "-"], "COMMAND 2> /dev/full")
    assert strict(done.stdout)["runs"]


def test_a_terminal_without_our_signs_is_printed_on(sweep: Path) -> None:
    done = run_command([str(sweep)], "PYTHONIOENCODING=ascii COMMAND")
    assert done.returncode == 0
    assert "mean ? half of its 95 % confidence interval" in done.stdout


def test_a_target_that_is_a_link_is_followed(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.json").symlink_to("elsewhere/e.json")
    (tmp_path / "link.html").symlink_to("elsewhere/r.html")
    arguments = [str(sweep / "0"), "--json", str(tmp_path / "link.json"), "--html", str(tmp_path / "link.html")]
    for _ in range(2):
        assert main(arguments) == 0
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["e.json", "r.html"]
    assert (tmp_path / "link.json").is_symlink()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is no ordinary file; give the name of one, such as evaluation.json"),
        (lambda path: path.symlink_to("/dev/null"), "is no ordinary file; give the name of one"),
        (os.mkdir, "is a folder; give the file's name"),
        (lambda path: path.symlink_to("gone/e.json"), "there is no folder DIR/gone; make it first: mkdir -p DIR/gone"),
        (lambda path: path.symlink_to(path.name), "cannot be written: Too many levels of symbolic links"),
    ],
)
def test_targets_that_are_refused(make, said: str, sweep: Path, tmp_path: Path, capsys) -> None:
    make(tmp_path / "e.json")
    assert main([str(sweep / "0"), "--json", str(tmp_path / "e.json")]) == 2
    assert f"e.json: {said}".replace("DIR", str(tmp_path)) in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["e.json"]


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv takes from root the right to write everywhere")
def test_what_may_not_be_written_is_refused(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "fixed.json").write_text("old")
    (tmp_path / "fixed.json").chmod(0o444)
    (tmp_path / "folder").mkdir(mode=0o555)
    for target, said in (("fixed.json", "a file"), ("folder/e.json", "a folder")):
        limited = "setpriv --bounding-set -dac_override,-dac_read_search COMMAND"
        done = run_command([str(sweep / "0"), "--json", str(tmp_path / target)], limited)
        assert done.returncode == 2
        assert f"is {said} that may not be written; name another, or allow it: chmod u+w" in done.stderr
    assert (tmp_path / "fixed.json").read_text() == "old"


def test_what_vanishes_while_it_is_evaluated(tmp_path: Path) -> None:
    """Between the reading of the runs and the page, which links their files and reads gradient norms."""
    root = fake_runs.sweep(tmp_path / "s", seeds=1)
    evaluation, runs = evaluate([root])
    shutil.rmtree(root)
    assert html.page(evaluation, runs, tmp_path, "command")


@pytest.mark.slow
@pytest.mark.parametrize("runs", [10, 10_000])
def test_few_and_many_runs(runs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(runs):
        train, val = fake_runs.curves(10, 0.5 * (i % 2), i, speed=1.0)
        fake_runs.our_run(tmp_path / str(i), {"seed": i // 2, "wide": bool(i % 2)}, train, val, events=False)
    assert main([str(tmp_path), "--html", str(tmp_path / "r.html")]) == 0
    assert f"{runs} runs" in capsys.readouterr().out
    assert (tmp_path / "r.html").stat().st_size < 30e6


@pytest.mark.parametrize("seed", range(12))
def test_damaged_files_of_every_kind(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes changed, lost, repeated and put in: never a traceback, and what is written stays strict."""
    rng = np.random.default_rng(seed)
    train, val = fake_runs.curves(12, 0.5, seed, speed=2.0)
    for i in range(2):
        fake_runs.our_run(tmp_path / "in" / str(i), {"seed": i, "model": {"depth": i}}, train, val)
    fake_runs.other_run(tmp_path / "in" / "loop", ("train_loss", "val_loss"), train, val)
    lines = [f"{i},{a},{b}\n" for i, (a, b) in enumerate(zip(train, val, strict=True))]
    (tmp_path / "in" / "keras.csv").write_text("epoch,loss,val_loss\n" + "".join(lines))
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for _ in range(rng.integers(0, 4)):
            at, upto = sorted(rng.integers(0, len(data) + 1, 2))
            middles = [b"", bytes([rng.integers(256)]), data[at:upto] * 2, b"\0", b'"', b"nan", b"{", b"9" * 400]
            data = data[:at] + middles[rng.integers(len(middles))] + data[min(upto, at + rng.integers(60)) :]
        path.write_bytes(data)
    code = main([str(tmp_path / "in"), "--json", str(tmp_path / "e.json"), "--html", str(tmp_path / "r.html")])
    assert code in (0, 2)
    if code == 0:
        strict((tmp_path / "e.json").read_text())


def test_a_key_to_tune_that_no_run_has_is_said(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep), "--tune", "model.dropuot"]) == 2
    said = capsys.readouterr().err
    assert (
        said == "--tune: found model.dropuot, expected a key of the runs' configuration; did you mean model.dropout?\n"
    )


def test_a_choice_of_files_can_be_tuned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was typed, optimizer=sgd, is no key of the configuration that came of it."""
    for i, (name, seed) in enumerate((name, seed) for name in ("sgd", "adam") for seed in range(3)):
        config = {"seed": seed, "optimizer": {"_target_": name.upper()}, "model": {"depth": 1}}
        folder = fake_runs.our_run(tmp_path / str(i), config, *fake_runs.curves(20, 0, i), events=False)
        (folder / ".hydra" / "overrides.yaml").write_text(f"- optimizer={name}\n- seed={seed}\n")
    assert main([str(tmp_path), "--tune", "optimizer"]) == 0, capsys.readouterr().err


def test_of_a_whole_comparison_only_its_final_runs_answer(tmp_path: Path) -> None:
    """The search chose by its own seeds: with them, what it chose would look better than it is."""
    for phase, seeds, rates in (("search-1", (100,), (0.1, 1.0)), ("final", (0, 1, 2), (0.1,))):
        for name, rate in ((name, rate * scale) for name, scale in (("sgd", 1.0), ("adam", 0.01)) for rate in rates):
            for seed in seeds:
                config = {"seed": seed, "optimizer": {"_target_": f"torch.optim.{name}", "lr": rate}}
                folder = tmp_path / phase / f"{name}-{rate}-{seed}"
                fake_runs.our_run(folder, config, *fake_runs.curves(20, 0.0, seed), events=False)
        (tmp_path / phase / ".resume").mkdir()
        (tmp_path / phase / ".resume" / "plan.json").touch()
    (tmp_path / "versus.json").write_text(json.dumps({"tuned": {"optimizer.lr": ["0.1", "1"]}}))
    found, _ = evaluate([tmp_path])
    assert len(found["runs"]) == 6
    assert found["tuned"] == ["optimizer.lr"]
    assert [knob for group in found["groups"] for knob in group["knobs"]] == ["optimizer", "optimizer.lr"] * 2
    assert "search" in found["problems"][0]
    assert len(evaluate([tmp_path / "search-1"])[0]["runs"]) == 4
