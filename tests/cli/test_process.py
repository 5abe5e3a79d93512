"""The command as a process: how it ends by a signal, what it imports, tab completion."""

import contextlib
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import Cli, environment, left_behind
from trainer.cli import display
from trainer.engine.progress import News
from trainer.text import version


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_cleanly(number: int, expected: int, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(self: display.Display, news: News) -> None:
        if news.row and news.epoch == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(display.Display, "tell", tell)
    before = signal.getsignal(number)
    code, out, err = cli("hydra.run.dir=run epochs=100000")
    assert (code, err) == (expected, "")
    assert signal.getsignal(number) is before
    assert "\nended by interrupt after epoch 3\n" in out
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["status"], summary["stopped_by"], summary["epochs"]) == ("interrupted", "interrupt", 3)
    assert len(Path("run/metrics.csv").read_text().splitlines()) == 4
    for name in ("best", "last"):
        assert torch.load(f"run/checkpoints/{name}.pt", weights_only=True)["epoch"] in {1, 2, 3}


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_real_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", "epochs=100000", "hydra.run.dir=run"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("epoch 1/100000  train loss ")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "ended by interrupt" in out
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
def test_a_closed_terminal_and_a_clusters_time_limit_lose_nothing(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    sweep = ["-m", "epochs=100000", "seed=1,2", "hydra.sweep.dir='my sweep'"]
    command = [sys.executable, "-m", "trainer", *sweep]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # which nohup would have ignored
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().startswith("0 of 2 runs")
    os.killpg(process.pid, number)  # as a terminal does: workers too
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out.endswith("continue  python -m trainer resume='my sweep'\n")
    assert json.loads((tmp_path / "my sweep/0/summary.json").read_text())["status"] == "interrupted"


def test_on_a_terminal_something_is_said_at_once(tmp_path: Path) -> None:
    """A line that goes when the first words come."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "trainer", "--cfg", "job"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment() | {"TERM": "xterm"}, stdout=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the end, on Linux
        while piece := os.read(ours, 65536):
            said += piece
    os.close(ours)
    assert process.wait() == 0
    assert said.startswith(b"starting ...\r\x1b[2Kseed: 0\r\n")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("trace --part 1", "1  PARAMETERS", marks=pytest.mark.slow),
        ("evaluate --help", "usage: python -m trainer.evaluate"),
        ("--version", "trainer "),
    ],
)
def test_commands_are_subcommands_of_the_console_script(line: str, says: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", *line.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert says in done.stdout


@pytest.mark.parametrize(
    "command", ["trainer.evaluate", "trainer.trace.__main__", "trainer.versus.__main__", "trainer.cure.__main__"]
)
def test_every_command_says_its_version(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(command).main(["--version"])
    assert capsys.readouterr().out == f"{version()}\n"


def test_resume_is_a_subcommand_and_a_comment_of_zsh_is_none_of_ours(cli: Cli) -> None:
    assert cli("hydra.run.dir=run epochs=1 data.train_size=64 '#' on 64 examples")[0] == 0
    code, out, _ = cli("resume run --dry-run")
    assert (code, out.splitlines()[0]) == (0, "done before: run 0")


def test_ctrl_c_before_anything_began(tmp_path: Path) -> None:
    code = "import sys, signal, os\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # may be ignored here
    code += "from trainer import __main__\nfrom trainer.cli import app\n"
    code += "app.run = lambda arguments: os.kill(os.getpid(), signal.SIGINT)\n__main__.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "trainer: interrupted\n")


def modules_after(line: str, folder: Path) -> tuple[int, str, set[str]]:
    """Exit code, stdout and top-level names of the modules that a command line imports."""
    code = (
        "import sys\nfrom trainer.cli import app\n"
        "try:\n    code = app.run(sys.argv[1:])\nexcept SystemExit as end:\n    code = end.code\n"
        "print(code or 0, *sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *shlex.split(line)]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True)
    exit_code, *modules = done.stderr.split()
    return int(exit_code), done.stdout, set(modules)


@pytest.mark.parametrize(
    ("line", "says"),
    [("--help", "optimizer.lr "), ("--cfg job optimizer.lr=0.5", "lr: 0.5"), ("--info", "Defaults Tree")],
)
def test_what_needs_no_training_imports_no_torch(line: str, says: str, tmp_path: Path) -> None:
    code, out, modules = modules_after(line, tmp_path)
    assert code == 0
    assert says in out
    assert not modules & {"torch", "numpy", "rich.console", "tensorboard"}
    assert left_behind(tmp_path) == []


def test_a_run_imports_only_what_it_uses(tmp_path: Path) -> None:
    code, _, modules = modules_after("epochs=1", tmp_path)
    heavy = {"torch._dynamo", "torch._inductor", "sympy", "torchvision", "matplotlib", "tensorflow"}
    heavy |= {"scipy", "pandas", "grpc", "sklearn"}
    assert code == 0
    assert "torch" in modules
    assert not modules & heavy


def test_tab_completion(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def complete(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        return cli("-sc query=bash")[1].split()

    asked = {"COMP_LINE": "trainer optimizer=adamw", "COMP_POINT": "23"}
    command = [sys.executable, "-m", "trainer", "-sc", "query=bash"]
    done = subprocess.run(command, cwd=tmp_path, env=environment() | asked, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["optimizer=adamw"] == complete("trainer optimizer=adamw")
    assert complete("trainer model.batch") == ["model.batchnorm=", "model.batchnorm_position="]
    assert "optimizer=" in complete("trainer optimizer")
    for hidden in ("optimizer_", "+optimizer_", "optimizer_model=", "optimizer_model=adam", "optimizer_model."):
        assert complete(f"trainer {hidden}") == []
    assert left_behind(tmp_path) == []


def test_flags_and_overrides_in_any_order(cli: Cli) -> None:
    code, out, _ = cli("epochs=7 --cfg job model.depth=3")
    assert code == 0
    assert "epochs: 7\n" in out
    assert "depth: 3\n" in out
