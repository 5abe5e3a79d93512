"""Where the output of evaluate goes, and targets that take nothing."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, strict
from trainer.evaluate import main


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
        pytest.param(
            "COMMAND --json - > /dev/full",
            "the standard output takes no more: No space left on device\n",
            marks=pytest.mark.slow,
        ),
        ("COMMAND >&-", "the standard output is closed: nothing is printed there\n"),
        pytest.param("COMMAND >&- 2>&-", "", marks=pytest.mark.slow),
        ("COMMAND > /dev/full 2> /dev/full", ""),
        ("COMMAND | true; exit ${PIPESTATUS[0]}", "the standard output takes no more: Broken pipe\n"),
        ("(ulimit -f 1; COMMAND --json OUT/e.json)", "OUT/e.json: cannot be written: File too large\n"),
        pytest.param(
            "(ulimit -f 9; COMMAND --html OUT/r.html)",
            "OUT/r.html: cannot be written: File too large\n",
            marks=pytest.mark.slow,
        ),
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
