"""Where a module of the user's own lies, found without running any of it."""

import sys
from pathlib import Path

import pytest

from trainer.core import own_code


def test_modules_in_folders_within_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    inner = tmp_path / "mine_alone" / "deeper" / "still"
    inner.mkdir(parents=True)
    (inner / "net.py").write_text("from mine_alone.deeper import part\nraise SystemExit\n")
    (inner.parent / "part.py").write_text("")
    names = ["mine_alone.deeper.part", "mine_alone.deeper.still.net"]
    found = own_code.sources(names[1])
    assert found == {names[0]: inner.parent / "part.py", names[1]: inner / "net.py"}
    assert own_code.is_own(own_code.find(names[1]))
    assert own_code.lies_in(own_code.find("mine_alone.deeper.still"), inner.parent)
    for name in ("mine_alone.other", "mine_alone.deeper.other", "mine_alone.deeper.still.other"):
        assert own_code.find(name) is None
    assert not any(name.startswith("mine_alone") for name in sys.modules)
