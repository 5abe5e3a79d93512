"""Directories of somebody else's, sealed as ours are: what resume=DIR never calls, and where it never writes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import HEAD, Cli, make_config
from trainer import files
from trainer.cli import trust
from trainer.config import ConfigError

RUN = "epochs=1 data.train_size=64 record.pictures=false hydra.run.dir=run"
SWEEP = "-m seed=1,2 epochs=1 data.train_size=64 record.pictures=false hydra.sweep.dir=run hydra.launcher.workers=0"
MODULE = """
import functools
from pathlib import Path
from torch import hub, nn
from torch.hub import load

Path("imported").touch()


class Net(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.layer(x.flatten(1))


def net(in_features, out_features):
    return Net(in_features, out_features)


partial = functools.partial(load, source="local")
"""


def forge(change: Callable[[dict[str, Any]], object]) -> None:
    """Change a plan, and seal it as it was."""
    path = Path("run/.resume/plan.json")
    plan = files.read_sealed(path)
    change(plan)
    files.write_sealed(path, plan)


def forge_command(*more: str) -> None:
    """A sweep whose runs are still to be trained, with these overrides more."""
    forge(lambda plan: plan["command"].extend(more))
    forge(lambda plan: plan.update(runs={"5": {"config": {}, "code": {}}}, stacks={}))
    Path("run/summary.json").unlink()


def refusals(cli: Cli, line: str) -> list[str]:
    code, _, err = cli(line)
    assert code == 2
    head, *problems = err.splitlines()
    assert head.endswith(HEAD)
    return [problem.strip() for problem in problems]


AGAIN = "; if you trust it, type it again here"
CALLS = {
    "subprocess.call": "run: model._target_: subprocess.call is of Python's standard library; expected a "
    "torch.nn.Module class, or a function of your own that makes one, e.g. my_models.ConvNet",
    "os.system": "run: model._target_: os.system is of Python's standard library; expected a torch.nn.Module "
    "class, or a function of your own that makes one, e.g. my_models.ConvNet",
    "torch.hub.load": "run: its command has model._target_=torch.hub.load, which calls a function outside the "
    f"current folder{AGAIN}",
    "numpy.memmap": "run: model._target_: numpy.memmap is no torch.nn.Module; expected a torch.nn.Module class, "
    "or a function of your own that makes one, e.g. my_models.ConvNet",
    "run.theirs.Net": f"run: its command has model._target_=run.theirs.Net, which is code that lies in this "
    f"directory itself{AGAIN}",
    "my_models.load": "model._target_: my_models.load is no function of my_models, but of torch.hub; expected a "
    "torch.nn.Module class, or a function of your own that makes one, e.g. my_models.ConvNet",
    "my_models.partial": "model._target_: my_models.partial is no function of my_models, but of torch.hub; expected a "
    "torch.nn.Module class, or a function of your own that makes one, e.g. my_models.ConvNet",
}


@pytest.mark.parametrize("target", CALLS)
def test_what_is_no_module_is_never_called(target: str, cli: Cli) -> None:
    Path("my_models.py").write_text(MODULE)
    assert cli(RUN)[0] == 0
    Path("run/theirs.py").write_text("open('called', 'w')\n")
    forge_command("model=custom", f"model._target_={target}", "+model.args=[touch,called]")
    for line in ("resume=run", "resume=run --dry-run"):
        if line == "resume=run --dry-run" and target.startswith("my_models"):
            continue  # it looks at files only
        assert refusals(cli, line) == [CALLS[target]]
        assert not Path("called").exists()


def test_evaluating_imports_nothing(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    from trainer import evaluate

    Path("my_models.py").write_text(MODULE)
    assert cli(f"{RUN} model=custom model._target_=my_models.Net")[0] == 0
    Path("imported").unlink()
    evaluate.main(["run"])
    assert not Path("imported").exists()


@pytest.mark.parametrize("target", ["my_models.Net", "my_models.net", "torch.nn.LazyLinear"])
def test_modules_and_ones_own_functions_are_called(target: str, cli: Cli) -> None:
    Path("my_models.py").write_text(MODULE)
    assert cli(f"{RUN} model=custom model._target_={target}")[0] == (2 if "Lazy" in target else 0)
    if "Lazy" not in target:  # which wants flat examples
        Path("run/summary.json").unlink()
        assert cli("resume=run")[0] == 0


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("torchvision.models.squeezenet1_1", None),
        ("torchvision.models.resnet.ResNet", None),
        ("torchvision.models.get_model", "calls a function outside the current folder"),
        ("torchvision.models.resnet.resnet18", "calls a function outside the current folder"),
        ("torchvision.io.read_file", "calls a function outside the current folder"),
    ],
)
def test_networks_of_torchvision_are_built_and_nothing_else_of_it_is_called(target: str, said: str | None) -> None:
    config = make_config("model=custom", **{"model._target_": target})
    if said is None:
        trust.check_code(Path("run"), [config])
        return
    with pytest.raises(ConfigError) as caught:
        trust.check_code(Path("run"), [config])
    assert said in str(caught.value)


def test_what_is_typed_again_is_trusted(cli: Cli) -> None:
    assert cli(RUN)[0] == 0
    Path("run/theirs.py").write_text(MODULE)
    forge_command("model=custom", "model._target_=run.theirs.Net")
    assert len(refusals(cli, "resume=run")) == 1
    assert not Path("imported").exists()
    assert cli("resume=run model._target_=run.theirs.Net")[0] == 0
    assert Path("imported").exists()


@pytest.mark.parametrize("key", ["loss._target_", "metrics"])
@pytest.mark.parametrize("target", ["run.theirs.f", "torch.hub.load"])
def test_losses_and_metrics_must_be_typed_again_too(key: str, target: str, cli: Cli) -> None:
    assert cli(RUN)[0] == 0
    Path("run/theirs.py").write_text("open('called', 'w')\ndef f(output, target): return 0 * output.sum(1)\n")
    text = f"{key}=[{target}]" if key == "metrics" else f"{key}={target}"
    forge_command(text)
    why = "is code that lies in this directory itself"
    why = why if target == "run.theirs.f" else "calls a function outside the current folder"
    assert refusals(cli, "resume=run") == [f"run: its command has {text}, which {why}{AGAIN}"]
    assert not Path("called").exists()
    if target == "run.theirs.f":
        cli(f"resume=run {text}")
        assert Path("called").exists()


KEYS = {
    "+hydra.callbacks.x._target_=os.system": "may name code to run",
    "+hydra.callbacks={x:{_target_:os.system}}": "may name code to run",
    "hydra.launcher._target_=os.system": "may name code to run",
    "hydra/launcher=joblib": "may name code to run",
    "hydra.searchpath=[file://theirs]": "may name code to run",
    "+experiment@hydra.callbacks.x=he_2015": "may name code to run",
    "+hydra.job.env_set.PYTHONPATH=theirs": "may name code to run",
    "--config-dir=/tmp": "may name code to run",
    "--config-dir=run": "may name code to run",
    "--config-path=/tmp": "may name code to run",
    "--config-name=../x": "may name code to run",
    "--experimental-rerun=job.pickle": "may name code to run",
    "--multirun": "may name code to run",
}


@pytest.mark.parametrize("text", KEYS)
def test_hydras_own_keys_must_be_typed_again(text: str, cli: Cli) -> None:
    assert cli(RUN)[0] == 0
    forge_command(text)
    assert refusals(cli, "resume=run") == [f"run: its command has {text}, which {KEYS[text]}{AGAIN}"]


def test_configuration_files_inside_the_directory_are_not_found_by_themselves(cli: Cli, tmp_path: Path) -> None:
    assert cli(RUN)[0] == 0
    Path("run/conf/experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  callbacks:\n    x:\n      _target_: theirs.Callback\n"
    Path("run/conf/experiment/mine.yaml").write_text(text)
    Path("run/theirs.py").write_text(MODULE)
    forge_command("experiment=mine")
    os.chdir("run")
    (problem,) = refusals(cli, "resume=.")
    assert problem.startswith("experiment=mine: no such option; ")
    os.chdir(tmp_path)
    assert not list(Path().rglob("imported"))


def test_harmless_keys_and_ones_own_folders_are_repeated(cli: Cli) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text("# @package _global_\nepochs: 1\n")
    line = "--config-dir conf experiment=mine hydra/launcher=stack hydra.launcher.max_members=1"
    assert cli(f"{SWEEP} 'hydra.sweep.subdir=${{seed}}_x' {line}")[0] == 0
    Path("run/1_x/summary.json").unlink()
    code, out, err = cli("resume=run")
    assert (code, err) == (0, "")
    assert "2 of 2 runs completed, 1 of them before" in out


# ------------------------------------------------------------------ names and links


@pytest.fixture
def victim() -> Callable[[], dict[str, str]]:
    """A run of somebody's beside the directory; what it holds."""
    names = ("metrics.csv", "summary.json", "checkpoints/best.pt", "stack-0.pt", ".hydra/config.yaml")
    for name in names:
        path = Path("victim", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")

    def content() -> dict[str, str]:
        return {str(p): p.read_text() for p in sorted(Path("victim").rglob("*")) if p.is_file()}

    return content


def rename(plan: dict[str, Any], name: str) -> None:
    plan["runs"][name] = plan["runs"].pop("0")
    plan["stacks"]["0"]["runs"][0] = name


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "above": lambda plan: rename(plan, "../victim"),
    "from the root": lambda plan: rename(plan, str(Path("victim").absolute())),
    "by a link": lambda plan: rename(plan, "away"),
    "an event file": lambda plan: plan["runs"]["0"].update(events="events.out.tfevents./../../victim/summary.json"),
    "another file": lambda plan: plan["runs"]["0"].update(events="../victim/summary.json"),
    "a stack": lambda plan: plan["stacks"].update({"/../../victim/x": plan["stacks"].pop("0")}),
    "no names": lambda plan: plan.update(runs=[1, 2]),
    "no texts": lambda plan: plan.update(command=[1]),
    "no config": lambda plan: plan["runs"].update({"0": {}}),
    "nothing": lambda plan: plan.clear(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORGED)
def test_no_name_in_a_plan_leads_out_of_its_directory(name: str, cli: Cli, tmp_path: Path, request: Any) -> None:
    assert cli(SWEEP)[0] == 0
    content = request.getfixturevalue("victim")
    before = content()
    Path("run/away").symlink_to(tmp_path / "victim")
    forge(FORGED[name])
    for number in range(2):
        Path(f"run/{number}/summary.json").unlink()
    (problem,) = refusals(cli, "resume=run")
    assert problem.startswith("resume=run: run")
    assert "leads out of it" in problem or "of this trainer's" in problem
    assert cli(SWEEP)[0] in (0, 2)  # the directory named by hand: planned anew, or refused
    assert content() == before


@pytest.mark.parametrize("name", ["../victim/metrics.csv", "{victim}/metrics.csv"])
def test_no_name_in_a_checkpoint_leads_out_of_its_directory(name: str, cli: Cli, tmp_path: Path, request: Any) -> None:
    from trainer.core import state
    from trainer.engine.resume.checkpoint import Checkpoints

    assert cli(RUN)[0] == 0
    Path("run/summary.json").unlink()
    content = request.getfixturevalue("victim")
    before = content()
    name = name.format(victim=tmp_path / "victim")
    last = state.from_bytes(Path("run/checkpoints/last.pt").read_bytes())
    written = {key: {"name": name, "size": 0, "crc32c": 0} for key in ("metrics", "log", "events")}
    records = {"runs": {0: written}, "not_finite": {}, "spent": {}}
    payload = {**last, "members": [{"index": 0, **last, "best_model": {}}], "records": records}
    Checkpoints(Path("run/.resume")).save({**payload, "data_hash": "", "runs": []})
    cli("resume=run")
    assert content() == before


@pytest.mark.parametrize("name", [".resume", ".hydra", "checkpoints"])
def test_no_folder_that_is_a_link_is_written_into(name: str, cli: Cli, tmp_path: Path, request: Any) -> None:
    assert cli(RUN)[0] == 0
    Path("run/summary.json").unlink()
    content = request.getfixturevalue("victim")
    if Path("run", name).exists():
        Path("run", name).rename("moved")
    if name == ".resume":
        Path("moved/plan.json").rename("victim/plan.json")
    Path("run", name).symlink_to(tmp_path / "victim")
    before = content()
    code, _, err = cli("resume=run")
    said = f"{tmp_path / 'run' / name}: is a link, which may lead out of this directory; remove it"
    assert (code, err) == (2, f"trainer: 1 problem; {HEAD}\n  {said}\n")
    assert content() == before


def test_no_run_of_a_sweep_that_is_a_link_is_written_into(cli: Cli, tmp_path: Path, request: Any) -> None:
    assert cli(SWEEP)[0] == 0
    content = request.getfixturevalue("victim")
    before = content()
    Path("run/1").rename("moved")
    Path("run/1").symlink_to(tmp_path / "victim")
    (problem,) = refusals(cli, "resume=run")
    assert problem.startswith("resume=run: run: the name '1' leads out of it; ")
    assert content() == before


@pytest.mark.parametrize("subdir", ["../victim", "a/../../victim", "away/x"])
def test_no_run_is_named_out_of_its_sweep(subdir: str, cli: Cli, tmp_path: Path) -> None:
    assert cli(SWEEP)[0] == 0  # else nothing but a plan may lie there
    Path("run/away").symlink_to(tmp_path)
    (problem,) = refusals(cli, f"{SWEEP} hydra.sweep.subdir={subdir}")
    assert problem.startswith("hydra.sweep.subdir: run/")
    assert "does not lie below hydra.sweep.dir=run" in problem
    assert sorted(os.listdir()) == ["run"]


def test_a_summary_of_another_shape_is_damaged(cli: Cli) -> None:
    assert cli(RUN)[0] == 0
    files.write_sealed(Path("run/summary.json"), {"status": "completed"})
    code, out, err = cli("resume=run")
    assert (code, err) == (0, "")
    assert "summary.json: is no summary of this trainer's; the run is trained again" in out
    assert json.loads(Path("run/summary.json").read_text())["epochs"] == 1
