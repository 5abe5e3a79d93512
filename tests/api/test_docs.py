"""docs/python.md and docs/notebook.ipynb: what they show runs as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "python.md"


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_from_install_to_a_plot_in_eight_lines() -> None:
    (_, install), (_, first), *_ = blocks()
    assert install.startswith("$ pip install")
    lines = [line for text in (install, first) for line in text.splitlines() if line.strip()]
    assert len(lines) <= 8


@pytest.mark.slow
def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from sklearn.datasets import load_iris

    monkeypatch.chdir(tmp_path)
    load_iris(as_frame=True).frame.rename(columns={"target": "species"}).to_csv("my.csv", index=False)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, (kind, text) in enumerate(blocks()):
        if kind == "python":
            path = tmp_path / f"block{number}.py"
            path.write_text(text, encoding="utf-8")
            exec(compile(text, str(path), "exec"), names)
    assert Path("optimizer.png").stat().st_size > 10_000
    assert len(names["runs"]) == 10
    assert names["run"].config["model.width"] == 16
    assert "adam" in capsys.readouterr().out


@pytest.mark.slow
def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    shown = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    cells = [cell for cell in shown.cells if cell.cell_type == "code"]
    assert len(shown.cells) < 20

    def kinds() -> list[set[str]]:
        return [{kind for one in cell.outputs for kind in one.get("data", {"text": ""})} for cell in cells]

    committed = kinds()
    NotebookClient(shown, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert kinds() == committed
    assert sum("image/png" in kind for kind in committed) >= 2
    assert list((tmp_path / "outputs" / "sweeps").rglob("sweep.csv"))
