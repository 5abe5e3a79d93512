"""A mistake inside one's own configuration file: one message with the file, the line and the mistake."""

import os
from pathlib import Path

import pytest

from tests.helpers import HEAD, Cli
from trainer.cli import hints
from trainer.cli.config_files import CONF, FOLLOWING, Sources

GLOBAL = "# @package _global_\n"
LIST = f"{GLOBAL}defaults:\n  - "
BELOW = "its keys would be put below 'experiment', where nothing reads them"
OPTIMIZERS = "adadelta, adafactor, adagrad, adam, adamax, adamw, asgd, custom, nadam, radam, rmsprop, rprop, sgd"
MISTAKES = {  # text of a preset -> what is said of it
    f"{LIST}override /optimizer: adamm\n": "line 3: /optimizer: no option adamm; did you mean adam?",
    f"{LIST}override /optimizer:\n": f"line 3: /optimizer: no option null; choose from {OPTIMIZERS}",
    f"{LIST}override /optimizer: [sgd, x]\n": f"line 3: /optimizer: no option x; choose from {OPTIMIZERS}",
    f"{LIST}override /optimiser: sgd\n": "line 3: /optimiser: no such group; did you mean optimizer?",
    f"{LIST}override optimizer: sgd\n": "line 3: optimizer: no such group; write /optimizer",
    f"{LIST}overide /data: line\n": "line 3: overide: no such keyword; did you mean override?",
    f"{LIST}/data: line\n": "line 3: /data is chosen already; write 'override /data' to choose another option",
    f"{LIST}override /data: line\n  - keras_mnist_mlp\n": "line 4: keras_mnist_mlp stands below "
    "'override /data'; overrides come last",
    f"{LIST}keras_mnist\n": "line 3: keras_mnist: no such file; did you mean keras_mnist_mlp?",
    f"{GLOBAL}defaults:\n  override /data: line\n": "line 3: defaults: expected a list, one line "
    "'- GROUP: OPTION' each",
    f"{LIST}override /data: line\n    override /model: mlp\n": "line 3: expected one choice, - GROUP: "
    "OPTION, or the name of a file",
    "epochs: 3\n": f"line 1: begins without '# @package _global_'; {BELOW}",
    "": f"line 1: begins without '# @package _global_'; {BELOW}",
    "# mine\n# @package experiment\nepochs: 3\n": "line 2: found '# @package experiment', expected '# @package "
    f"_global_'; {BELOW}",
    f"{GLOBAL}model:\n\tdropout: 0.5\n": "line 3: indented with a tab; YAML takes spaces only",
    f"{GLOBAL}- epochs\n- 3\n": "line 2: found a list, expected lines KEY: VALUE",
    f"{GLOBAL}epochs\n": "line 2: found a single value, expected lines KEY: VALUE",
}  # fmt: skip
ONE_PLACE = {  # text -> the key and the line that are blamed
    f"{GLOBAL}model:\n  width: 3\n  width: 4\n": "line 4",
    f"{GLOBAL}model: {{width: 3\nepochs: 4\n": "line 3",
    f"{GLOBAL}epochs: !!python/object:os.system 3\n": "line 2",
    f"{GLOBAL}seed: ${{nothing.here}}\n": "line 2",
    f"{GLOBAL}seed: ${{seed}}\n": "line 2",
    f"{GLOBAL}seed: ${{epochs\n": "seed",
    f"{GLOBAL}model:\n  widht: 3\n": "model.widht: no such key; did you mean width? (PATH, line 3)",
    f"{GLOBAL}default:\n  - override /data: line\n": "default: no such key; did you mean defaults? (PATH, line 3)",
    f"{GLOBAL}epochs: 0\n": "epochs: found 0, expected a whole number of epochs >= 1 (PATH, line 2)",
    f"{GLOBAL}epochs:\n  a: 0\n": "epochs",
    f"{GLOBAL}model: 3\n": "line 2",
    f"{GLOBAL}model:\n  depth:2\n": "; a space belongs behind the colon, depth: 2 (PATH, line 3)",
    f"{GLOBAL}hydra:\n  sweep:\n    subdri: x\n": "hydra.sweep.subdri: Key 'subdri' not in 'SweepDir' (PATH, line 4)",
    f"\ufeff{GLOBAL}epochs: 3\n": "line 1: begins with a byte order mark",
}


def preset(text: str | bytes) -> Path:
    path = Path("conf/experiment/mine.yaml").absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_preset(text: str, cli: Cli) -> None:
    path = preset(text)
    code, out, err = cli("--config-dir conf experiment=mine")
    assert err == f"trainer: 1 problem; {HEAD}\n  {path}, {MISTAKES[text]}\n"
    assert (code, out) == (2, "")


@pytest.mark.parametrize("text", ONE_PLACE)
def test_the_place_of_a_mistake_is_named(text: str, cli: Cli) -> None:
    path = preset(text)
    code, out, err = cli("--config-dir conf experiment=mine")
    assert (code, out, err.count("\n")) == (2, "", 2)
    assert str(path) in err or text.endswith("a: 0\n")
    assert ONE_PLACE[text].replace("PATH", str(path)) in err


@pytest.mark.parametrize("line", ["--cfg job", "--help", "--dry-run", "-m seed=1,2", "--dry-run -m seed=1,2", "a=x"])
def test_whatever_is_asked_for(line: str, cli: Cli) -> None:
    path = preset(f"{GLOBAL}\tepochs: 3\n")
    code, out, err = cli(f"{line} --config-dir conf experiment=mine")
    assert (code, out) == (2, "")
    assert err == f"trainer: 1 problem; {HEAD}\n  {path}, line 2: indented with a tab; YAML takes spaces only\n"


def test_text_that_is_not_utf_8(cli: Cli) -> None:
    path = preset(b"# @package _global_\n# caf\xe9\nepochs: 3\n")
    code, _, err = cli("--config-dir conf experiment=mine")
    assert (code, err) == (2, f"trainer: 1 problem; {HEAD}\n  {path}, line 2: is not UTF-8; save the file as UTF-8\n")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(cli: Cli) -> None:
    path = preset(GLOBAL)
    path.chmod(0)
    code, _, err = cli("--config-dir conf experiment=mine")
    assert (code, err) == (2, f"trainer: 1 problem; {HEAD}\n  {path}: cannot be read: Permission denied\n")


def test_files_that_include_each_other(cli: Cli) -> None:
    path = preset(f"{LIST}other\n")
    path.with_name("other.yaml").write_text(f"{LIST}mine\n")
    code, _, err = cli("--config-dir conf experiment=mine")
    way = "config -> experiment/mine -> experiment/other -> experiment/mine"
    assert (code, err) == (2, f"trainer: 1 problem; {HEAD}\n  {path}: includes itself, by way of {way}\n")


def test_the_mistakes_of_a_file_at_once_and_of_one_it_names(cli: Cli) -> None:
    path = preset(f"{LIST}other\n  - override /data: lines\n  - override /optimizer: sdg\n")
    other = path.with_name("other.yaml")
    other.write_text("epochs: 3\n")
    code, _, err = cli("--config-dir conf experiment=mine")
    assert code == 2
    assert err.splitlines()[1:] == [
        f"  {other}, line 1: begins without '# @package _global_'; {BELOW}",
        f"  {path}, line 4: /data: no option lines; did you mean line?",
        f"  {path}, line 5: /optimizer: no option sdg; did you mean sgd?",
    ]


def test_a_wrong_value_in_one_preset_of_a_sweep(cli: Cli) -> None:
    """The file of that run is blamed, not the one whose value it replaces."""
    path = preset(f"{GLOBAL}model:\n  dropout: 5\n")
    path.with_name("good.yaml").write_text(f"{GLOBAL}epochs: 1\n")
    code, out, err = cli("-m --config-dir conf experiment=mine,good")
    assert (code, err) == (1, "")
    assert f"run 0 failed: model.dropout: found 5, expected a number >= 0 and < 1 ({path}, line 3)" in out


def test_a_run_of_a_sweep_with_a_broken_preset_fails_alone(cli: Cli) -> None:
    path = preset(f"{GLOBAL}\tepochs: 3\n")
    path.with_name("good.yaml").write_text(f"{GLOBAL}epochs: 1\n")
    code, out, err = cli("-m --config-dir conf experiment=mine,good")
    assert (code, err) == (1, "")
    assert f"run 0 failed: {path}, line 2: indented with a tab; YAML takes spaces only" in out
    assert "1 of 2 runs completed" in out


def test_a_good_preset_is_trained_recognised_and_resumed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    preset(f"{LIST}override /optimizer: sgd\nepochs: 1\noptimizer:\n  lr: 1e-2\n")
    command = "--config-dir conf experiment=mine hydra.run.dir=run"
    assert cli(command)[::2] == (0, "")
    for again in (command, f"hydra.run.dir=run {command}", "resume=run"):
        code, out, err = cli(again)
        assert (code, err) == (0, "")
        assert "run: done before; nothing is trained" in out
    elsewhere = Path("elsewhere").absolute()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    code, _, err = cli("resume=../run epochs=2")  # from here nobody can tell whose files those are
    assert (code, "--config-dir=" in err, "type it again" in err) == (2, True, True)
    code, out, err = cli("resume=../run epochs=2 --config-dir ../conf")
    assert (code, err) == (0, "")
    assert "epoch 2/2" in out


@pytest.mark.parametrize("flag", ["--cfg job", "--resolve --cfg job", "--run", "--dry-run", "--help"])
def test_every_flag_beside_the_directory_of_a_run(flag: str, cli: Cli) -> None:
    command = "epochs=1 data.train_size=64 record.pictures=false hydra.run.dir=run"
    assert cli(command)[0] == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    for line in (f"{command} {flag}", f"{flag} {command}"):
        code, _, err = cli(line)
        assert (code, err) == (0, "")
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_a_fault_of_ours_is_no_mistake_in_a_file() -> None:
    with pytest.raises(ValueError, match="ours") as error:
        raise ValueError("ours")
    assert not hints.is_of_composing(error.value)
    assert not hints.is_of_composing(OSError(28, "full"))


def test_groups_that_follow_are_the_ones_with_a_choice_made_of_others() -> None:
    text = (CONF / "config.yaml").read_text()
    following = {line.split()[2].rstrip(":") for line in text.splitlines() if line.startswith("  - optional ")}
    assert following == FOLLOWING
    assert not FOLLOWING & set(Sources().groups)
