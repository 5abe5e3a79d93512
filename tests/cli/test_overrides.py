"""Words for the command line: splitting it, its flags, --help."""

import dataclasses
import typing
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException

from trainer import config as cfg
from trainer.cli import overrides as diagnose

CONF = Path(__file__).parents[2] / "conf"


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
    assert diagnose.split(line.split()) == (flags, overrides)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--multirn", "--multirn: no such flag; did you mean --multirun?"),
        ("--resume", "--resume: no such flag; did you mean --resolve?"),
        ("--cfg", "argument --cfg/-c: expected one argument"),
    ],
)
def test_flag_problems(flags: str, message: str) -> None:
    assert diagnose.flag_problems(flags.split()) == [message]


def test_sound_flags() -> None:
    for flags in ("-m", "--multirun", "--cfg job", "-c hydra", "--info", "--resolve --cfg job", "--config-dir=x"):
        assert diagnose.flag_problems(flags.split()) == []


def test_run_directory() -> None:
    assert diagnose.run_directory(["epochs=1", "hydra.run.dir=a", "hydra.run.dir=b"]) == Path("b")
    assert diagnose.run_directory(["hydra.run.dir=a/${now:%H}"]) is None
    assert diagnose.run_directory(["epochs=1"]) is None


def test_whose_error_it_is() -> None:
    assert diagnose.is_hydras(ConfigCompositionException("no"))
    with pytest.raises(ValueError, match="ours") as error:
        raise ValueError("ours")
    assert not diagnose.is_hydras(error.value)
    for raised, expected in ((ValueError("null"), True), (OSError(28, "full"), False)):
        inside: dict[str, typing.Any] = {"__name__": "hydra.core.utils"}
        exec("def fail(error):\n    raise error", inside)
        with pytest.raises(type(raised)) as hydras:
            inside["fail"](raised)
        assert diagnose.is_hydras(hydras.value) == expected


@pytest.mark.parametrize("width", [80, 100, 120])
def test_help_fits_its_width(width: int) -> None:
    text = diagnose.help_text(CONF, ["data=spirals", "schedule=step", "optimizer=sgd"], width)
    too_wide = [line for line in text.splitlines()[3:] if len(line) > width and "Hydra's own flags" not in line]
    assert too_wide == []


def test_help_has_every_knob_with_its_value_and_unit() -> None:
    text = diagnose.help_text(CONF, ["data=spirals", "schedule=step", "optimizer=sgd", "epochs=7"], 120)
    for cls, prefix in ((cfg.Data, "data."), (cfg.Mlp, "model."), (cfg.Record, "record."), (cfg.Schedule, "schedule.")):
        for field in dataclasses.fields(cls):
            assert f"\n  {prefix}{field.name} " in text
    epochs = "epochs                    7             passes over the training split (a whole number of epochs >= 1)"
    assert f"\n  {epochs}" in text
    assert "experiment=" in text
    assert "sizes=" not in text
    assert "cifar10, clusters, digits" in text


def test_help_shows_what_is_handed_to_a_class() -> None:
    text = diagnose.help_text(CONF, ["optimizer=nadam"], 100)
    assert "\n  optimizer.momentum_decay  0.004         handed to torch.optim.NAdam" in text


def test_every_field_says_what_it_means() -> None:
    for cls in (cfg.Config, cfg.Data, cfg.Mlp, cfg.CustomModel, cfg.Optimizer, cfg.Schedule, cfg.Loss, cfg.Record):
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            assert dataclasses.is_dataclass(hints[field.name]) or field.metadata.get("help") or field.name == "model"
