"""A command line: splitting it, its flags, the directory it names, what resume=DIR repeats."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from tests.helpers import Cli
from trainer.cli import command_line
from trainer.cli.command_line import quoted
from trainer.config import ConfigError


@pytest.mark.parametrize(
    ("line", "flags", "overrides"),
    [
        ("epochs=1 --cfg job epochs=2", ["--cfg", "job"], ["epochs=1", "epochs=2"]),
        ("--info optimizer=sgd", ["--info"], ["optimizer=sgd"]),
        ("--info defaults optimizer=sgd", ["--info", "defaults"], ["optimizer=sgd"]),
        ("-m ~experiment a=1,2", ["-m"], ["~experiment", "a=1,2"]),
        ("-m epochs", ["-m"], ["epochs"]),
        ("--cfg=job +a=1 ++b=2", ["--cfg=job"], ["+a=1", "++b=2"]),
        ("epochs", [], ["epochs"]),
        ("", [], []),
    ],
)
def test_split(line: str, flags: list[str], overrides: list[str]) -> None:
    assert command_line.split(line.split()) == (flags, overrides)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--multirn", "--multirn: no such flag; did you mean --multirun?"),
        ("--resume", "--resume: keys are typed without dashes, resume=VALUE"),
        ("--config-dir nowhere", "--config-dir: nowhere: no such directory"),
        (
            "-m --cfg job seed=1,2",
            "--multirun --cfg: only one of these at a time; resume=DIR of a sweep implies --multirun",
        ),
        ("-m --resolve seed=1,2", "--resolve: says how --cfg prints; type --cfg job --resolve"),
        (
            "--dry-run hydra/launcher=basic",
            "--dry-run: cannot foresee what hydra/launcher=basic would do; leave one out",
        ),
    ],
)
def test_flags_that_are_refused(flags: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        command_line.read(flags.split())
    assert error.value.problems == [message]


@pytest.mark.parametrize("flags", ["--cfg", "--cfg everything", "--config-dir"])
def test_flags_without_a_good_value(flags: str) -> None:
    with pytest.raises(ConfigError) as error:
        command_line.read(flags.split())
    (problem,) = error.value.problems
    assert flags.split()[0] in problem


@pytest.mark.parametrize("line", ["-m", "--multirun", "--cfg job", "-c hydra", "--info", "--resolve --cfg job", "-h"])
def test_sound_flags(line: str) -> None:
    assert command_line.read(line.split()).overrides == []


def test_the_directory_that_is_named() -> None:
    assert command_line.read(["epochs=1", "hydra.run.dir=a", "hydra.run.dir='b c'"]).directory == Path("b c")
    assert command_line.read(["hydra.run.dir=a/${now:%H}"]).directory is None
    assert command_line.read(["hydra.sweep.dir=a"]).directory is None
    assert command_line.read(["-m", "hydra.sweep.dir=a"]).directory == Path("a")


def test_what_resume_repeats(tmp_path: Path) -> None:
    line = command_line.read(["-m", "hydra.sweep.dir=x", "--config-dir", str(tmp_path), "-cn", "mine", "seed=1,2"])
    assert line.repeatable == [f"--config-dir={tmp_path}", "--config-name=mine", "seed=1,2"]
    again = command_line.read(["-m", *line.repeatable])
    assert (again.sources, again.overrides) == (line.sources, ["seed=1,2"])


ODD_NAMES = [
    "é b,c=d",
    "it's",
    "[x]",
    "null",
    "1e3",
    "back\\slash",
    "end\\",
    "日本",
    "~t",
    "$x",
    'a"b',
    "{a:1}",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_directory_of_any_name_can_be_resumed(name: str, cli: Cli) -> None:
    line = f"epochs=1 data.train_size=64 record.pictures=false {shlex.quote('hydra.run.dir=' + quoted(name))}"
    assert cli(line)[0] == 0
    assert Path(name, "summary.json").exists()
    code, out, err = cli(f"resume={shlex.quote(name)}")
    assert (code, err) == (0, "")
    assert f"{shlex.quote(name)}: done before; nothing is trained" in out


@pytest.mark.parametrize(("line", "times"), [("", 1), ("-m seed=1,2 hydra.launcher.workers=0", 2), ("model=cnn", 1)])
def test_a_command_is_composed_once_and_a_sweep_once_more_for_its_jobs(
    line: str, times: int, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed, compose = list[str](), ConfigLoaderImpl.load_configuration

    def counted(self: ConfigLoaderImpl, *arguments: Any, **keywords: Any) -> Any:
        composed.append("once")
        return compose(self, *arguments, **keywords)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    assert cli(f"{line} epochs=1 data.train_size=64 record.pictures=false")[0] == 0
    assert len(composed) == times


def test_hydra_may_be_told_that_it_is_a_sweep(cli: Cli) -> None:
    tiny = "epochs=1 data.train_size=64 record.pictures=false hydra.launcher.workers=0"
    code, out, _ = cli(f"hydra.mode=MULTIRUN seed=1,2 {tiny}")
    assert code == 0
    assert "2 of 2 runs completed" in out
