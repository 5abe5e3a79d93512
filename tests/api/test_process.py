"""What training from Python leaves in the caller's process, nothing; and what interrupts and kills leave on disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import trainer
from tests.helpers import environment

STATE = """
import json, os, random, signal, sys, threading
import numpy as np
import torch

def state():
    from multiprocessing import forkserver
    hydra = sys.modules.get("hydra.core.global_hydra")
    return {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "argv": list(sys.argv),
        "handlers": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)],
        "hydra": hydra is not None and hydra.GlobalHydra.instance().is_initialized(),
        "server": forkserver._forkserver._forkserver_pid,
        "torch": [torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()],
        "random": [random.getstate()[1], np.random.get_state()[1].tolist(), torch.initial_seed()],
        "drawn": torch.get_rng_state().sum().item(),
        "threads": threading.active_count(),
        "streams": [id(sys.stdout), id(sys.stderr)],
        "main": sys.modules["__main__"].__file__,
    }
"""
SMALL = "epochs=2 model.width=4 record.pictures=false"


def script(text: str, folder: Path, name: str = "script.py", **options: Any) -> subprocess.Popen[str]:
    """Start a script without a guard for __main__, as people write them."""
    (folder / name).write_text(text)
    out = subprocess.PIPE
    command = [sys.executable, name]
    return subprocess.Popen(command, cwd=folder, env=environment(), stdout=out, stderr=out, text=True, **options)


def printed(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
def test_nothing_stays_behind(tmp_path: Path) -> None:
    text = f"""{STATE}
import trainer
torch.set_num_threads(2)
torch.set_default_dtype(torch.float64)
torch.manual_seed(7)
class Net(torch.nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = torch.nn.Linear(in_features, out_features)
    def forward(self, x):
        return self.layer(x.flatten(1))
trainer.load  # what is imported once is imported
before = state()
run = trainer.run("{SMALL}")
runs = trainer.sweep("epochs=2", seed=[0, 1], model=Net)
try:
    trainer.run("optimizer=adma")
except trainer.ConfigError:
    pass
runs.frame(), runs.curves(), runs.steps("lr")
try:
    runs.compare(), runs.plot()
finally:
    runs[0].model(), run.model()
after = state()
print({{key: (before[key], after[key]) for key in before if before[key] != after[key]}})
"""
    assert printed(script(text, tmp_path)) == "{}\n"


def test_importing_it_and_training_import_no_torch(tmp_path: Path) -> None:
    text = """
import sys
import trainer
heavy = {"torch", "numpy", "pandas", "matplotlib", "hydra", "rich", "IPython"}
assert not heavy & set(sys.modules)
trainer.sweep("epochs=1 data.train_size=64 record.pictures=false", seed=[0, 1])
print(sorted({"torch", "hydra", "pandas", "matplotlib", "IPython"} & set(sys.modules)))
"""
    assert printed(script(text, tmp_path)) == "[]\n"


@pytest.mark.slow
def test_from_a_thread_in_a_running_loop_and_twice(tmp_path: Path) -> None:
    text = f"""
import asyncio, threading
import trainer
found = []
def train():
    found.append(trainer.sweep("{SMALL}", seed=[0, 1]).frame()["test_loss"].tolist())
threads = [threading.Thread(target=train) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
async def main():
    train()
asyncio.run(main())
print(len(found), len({{str(one) for one in found}}))
"""
    assert printed(script(text, tmp_path)) == "3 1\n"


LONG = """
import signal
import trainer
signal.signal(signal.SIGINT, signal.default_int_handler)  # which what a shell starts in the background ignores
try:
    trainer.sweep("model.width=4 record.pictures=false", epochs=EPOCHS, seed=[0, 1], folder="long")
except KeyboardInterrupt as interrupt:
    print(interrupt)
"""


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are sent")
def test_an_interrupt_keeps_what_was_recorded_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = script(LONG.replace("EPOCHS", "3000"), tmp_path, start_new_session=True)
    wait_for((tmp_path / "long" / "1" / "metrics.csv").exists)  # it trains
    os.killpg(process.pid, signal.SIGINT)
    said = printed(process)
    assert "stopping after this step" in said
    assert f"what was recorded is in {tmp_path / 'long'}" in said
    runs = trainer.load(tmp_path / "long")
    assert {run.status for run in runs} == {"interrupted"}
    monkeypatch.chdir(tmp_path)
    asked = "model.width=4 record.pictures=false"
    done = trainer.sweep(asked, epochs=3000, seed=[0, 1], folder="long")
    assert [run.status for run in done] == ["completed", "completed"]
    never = trainer.sweep(asked, epochs=3000, seed=[0, 1], folder="never_interrupted")
    for one, other in zip(done, never, strict=True):
        assert one.folder is not None
        assert other.folder is not None
        for name in ("metrics.csv", "checkpoints/last.pt"):
            assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are sent")
def test_a_killed_caller_ends_what_trains_for_it(tmp_path: Path) -> None:
    process = script(LONG.replace("EPOCHS", "1000000"), tmp_path)
    wait_for((tmp_path / "long" / "1" / ".hydra" / "overrides.yaml").exists)
    owner = json.loads((tmp_path / "long" / ".lock").read_text())
    assert owner["pid"] != process.pid
    process.kill()
    process.communicate()
    wait_for(lambda: not (tmp_path / "long" / ".lock").exists())
    assert {run.status for run in trainer.load(tmp_path / "long")} == {"interrupted"}


@pytest.mark.slow
def test_what_own_code_prints_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loud.py").write_text(
        "from torch import nn\n\ndef network(in_features, out_features):\n"
        "    print('hällo')\n    return nn.Sequential(nn.Flatten(), nn.Linear(in_features, out_features))\n"
    )
    trainer.run("epochs=1", {"model": "custom", "model._target_": "loud.network"})
    assert "hällo\n" in capsys.readouterr().out


@pytest.mark.slow
def test_what_own_code_leaves_running_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lasting.py").write_text(
        "import subprocess, sys\nfrom torch import nn\n\ndef network(in_features, out_features):\n"
        "    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_features, out_features))\n"
    )
    began = time.monotonic()
    run = trainer.run("epochs=1", {"model": "custom", "model._target_": "lasting.network"})
    assert run.status == "completed"
    assert time.monotonic() - began < 300  # half of how long that runs


@pytest.mark.slow
def test_the_interrupt_of_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    manager, client = start_new_kernel(cwd=str(tmp_path))

    def replies(code: str) -> list[tuple[str, Any]]:
        """What a cell shows; interrupted once its progress bar moves."""
        asked, found, long = client.execute(code), [], "epochs=100000" in code
        while not found or found[-1] != ("status", "idle"):
            message = client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") == asked:
                kind, content = message["msg_type"], message["content"]
                found.append((kind, content.get("execution_state", content)))
                if long and [k for k, _ in found].count("update_display_data") == 5:
                    manager.interrupt_kernel()
                    long = False
        return found

    try:
        replies("import trainer")
        said = replies("trainer.sweep('epochs=100000', seed=[0, 1], folder='long')")
        assert any(kind == "display_data" and "<progress" in str(shown) for kind, shown in said)
        assert any(kind == "error" and shown["ename"] == "KeyboardInterrupt" for kind, shown in said)
        (shown,) = [shown for kind, shown in replies("trainer.load('long')") if kind == "execute_result"]
        assert {"text/plain", "text/html"} == shown["data"].keys()
        assert "interrupted" in shown["data"]["text/plain"]
        (shown,) = [shown for kind, shown in replies("trainer.load('long').plot()") if kind == "execute_result"]
        assert "image/png" in shown["data"]
    finally:
        manager.shutdown_kernel(now=True)
        client.stop_channels()
