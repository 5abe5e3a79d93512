"""Optimizers and schedules of the user's own through the command line: bits, kills, harm; plateau's state."""

import sys
from pathlib import Path

import pytest

from scripts.faults import differing, results
from tests.helpers import HEAD, Cli, jobs_of, make_config, rows, stop_at, summary
from trainer.engine import planning

OPTIMIZERS = """
import torch


class Noisy(torch.optim.Optimizer):
    def __init__(self, params, lr, fails=-1):
        super().__init__(params, {"lr": lr})
        self.steps, self.fails = 0, fails

    def step(self, closure=None):
        self.steps += 1
        if self.steps == self.fails:
            raise ValueError("boom")
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].get("m", torch.zeros_like(p))
                self.state[p]["m"] = m = m + (p.grad - m) / self.steps
                p.data = p.data - group["lr"] * (m.sign() + 0.1 * torch.randn_like(p))


class Sign(Noisy):
    def step(self, closure=None):
        self.steps += 1
        if self.steps == self.fails:
            raise ValueError("boom")
        for group in self.param_groups:
            for p in group["params"]:
                p.data = p.data - group["lr"] * p.grad.sign() / self.steps**0.5


def half(progress):
    return 1.0 if progress < 0.5 else 0.1
"""
TINY = "data.train_size=100 model.width=6 record.pictures=false"
RUN = f"hydra.run.dir=run {TINY}"
OWN = "optimizer=custom optimizer._target_=own_opt"
PLATEAU = "schedule=plateau schedule.patience=0 schedule.factor=0.5 schedule.threshold=0.2"


@pytest.fixture(autouse=True)
def own_opt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_opt.py").write_text(OPTIMIZERS)
    monkeypatch.delitem(sys.modules, "own_opt", raising=False)


LINES = [
    f"epochs=6 {OWN}.Noisy optimizer.lr=0.01",
    f"epochs=6 {OWN}.Sign {PLATEAU}",
    f"epochs=8 optimizer=sgd {PLATEAU}",
    "epochs=6 optimizer=adamw schedule=one_cycle",
    "epochs=6 optimizer=adafactor schedule=custom schedule._target_=own_opt.half",
]


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_interrupted_within_an_epoch_it_ends_with_the_same_bits(
    line: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("whole", "again"):
        assert cli(f"hydra.run.dir={folder}/0 {TINY} {line}")[0] == 0
    assert differing(results(Path("whole")), results(Path("again"))) == []
    with monkeypatch.context() as patch:
        stop_at(patch, 8)
        assert cli(f"hydra.run.dir=killed/0 {TINY} {line}")[0] == 130
    assert summary(Path("killed/0"))["steps"] == 8
    assert cli("resume=killed/0")[0] == 0
    assert differing(results(Path("whole")), results(Path("killed"))) == []
    if "plateau" in line or "half" in line:
        assert len({row["lr"] for row in rows(Path("killed/0"))}) > 1


def test_more_epochs_under_plateau_are_those_of_a_longer_run(cli: Cli) -> None:
    values = f"seed=1,2 optimizer=sgd {PLATEAU}"
    assert cli(f"-m hydra.sweep.dir=whole {TINY} {values} epochs=6")[0] == 0
    assert cli(f"-m hydra.sweep.dir=sweep {TINY} {values} epochs=3")[0] == 0
    assert cli("resume=sweep epochs=6")[0] == 0
    assert differing(results(Path("sweep")), results(Path("whole"))) == []


@pytest.mark.parametrize("schedule", ["linear", "one_cycle", "custom schedule._target_=own_opt.half"])
def test_more_epochs_where_the_budget_decides(schedule: str, cli: Cli) -> None:
    assert cli(f"{RUN} epochs=2 schedule={schedule}")[0] == 0
    _, _, err = cli("resume=run epochs=4")
    name = schedule.split()[0]
    assert f"but schedule={name}: its learning rate spans 2 epochs, over 4 it would be another; choose" in err


@pytest.mark.slow
def test_a_step_that_raises_ends_its_run_alone(cli: Cli, tmp_path: Path) -> None:
    """Whether in company of leaves or of the stack alone: the others are as they are without it, to round-off."""
    for name in ("Sign", "Noisy"):
        values = f"seed=1,2 {OWN}.{name} epochs=10"
        code, out, _ = cli(f"-m hydra.sweep.dir={name} {TINY} +optimizer.fails=-1,15 {values}")
        place = f"{tmp_path / 'own_opt.py'}, line {13 if name == 'Noisy' else 25}"
        said = f"optimizer._target_: step 15 of own_opt.{name} fails: ValueError: boom ({place})"
        assert (code, "2 of 4 runs completed" in out, said in out) == (1, True, True)
        found = {run["number"]: run for run in map(_summary, sorted(Path(name).glob("[0-9]*")))}
        assert [found[n]["status"] for n in range(4)] == ["completed", "completed", "failed", "failed"]
        assert found[2]["error"] == said
        assert cli(f"-m hydra.sweep.dir={name}-alone {TINY} {values} +optimizer.fails=-1")[0] == 0
        for n in range(2):
            pairs = zip(rows(Path(name, str(n))), rows(Path(f"{name}-alone", str(n))), strict=True)
            assert all(a == pytest.approx(b, rel=1e-3, abs=1e-4) for a, b in pairs)


def _summary(folder: Path) -> dict[str, object]:
    return {"number": int(folder.name), **summary(folder)}


def test_what_fails_on_trial_is_told_before_anything_trains(cli: Cli, tmp_path: Path) -> None:
    said = f"optimizer._target_: step 3 of own_opt.Sign fails: ValueError: boom ({tmp_path / 'own_opt.py'}, line 25)"
    for line in (RUN, f"-m hydra.sweep.dir=run {TINY} seed=1,2"):
        code, _, err = cli(f"{line} {OWN}.Sign +optimizer.fails=3")
        assert (code, err) == (2, f"trainer: 1 problem; {HEAD}\n  {said}\n")
        assert not Path("run").exists()


def test_own_classes_have_company_of_their_own(tmp_path: Path) -> None:
    names = ["own_opt.Sign", "own_opt.Sign", "own_opt.Noisy", "torch.optim.Adagrad"]
    configs = [make_config("optimizer=custom", **{"optimizer._target_": name}) for name in names]
    stacks = planning.plan(jobs_of([*configs, make_config("optimizer=adagrad")], tmp_path), 128)
    assert sorted(sorted(job.number for job in stack) for stack in stacks) == [[0, 1], [2], [3, 4]]
