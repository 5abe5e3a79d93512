"""The command: what it prints, writes and returns."""

import io
import itertools
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests import fake_runs
from tests.helpers import strict
from trainer.evaluate import evaluate, main
from trainer.report.terminal import print_tables


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


def test_the_answer_of_a_single_run_is_its_verdict(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep / "0")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("overfit: validation loss has risen by")
    assert printed.count("validation loss has risen by") == 1
    assert "warning" not in printed  # of too few seeds: nothing is compared


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


@pytest.mark.slow
@pytest.mark.parametrize("runs", [10, 10_000])
def test_few_and_many_runs(runs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(runs):
        train, val = fake_runs.curves(10, 0.5 * (i % 2), i, speed=1.0)
        fake_runs.our_run(tmp_path / str(i), {"seed": i // 2, "wide": bool(i % 2)}, train, val, events=False)
    assert main([str(tmp_path), "--html", str(tmp_path / "r.html")]) == 0
    assert f"{runs} runs" in capsys.readouterr().out
    assert (tmp_path / "r.html").stat().st_size < 30e6


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
