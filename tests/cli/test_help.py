"""--help: every group, every knob with its value, meaning, unit and range."""

import dataclasses
import typing

import pytest
from rich.cells import cell_len

from trainer import config as cfg
from trainer.cli import help
from trainer.cli.config_files import CONF, FOLLOWING, Sources

SPIRALS = ["data=spirals", "schedule=step", "optimizer=sgd"]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_it_fits_its_width(width: int) -> None:
    text = help.text(Sources(), SPIRALS, width)
    assert [line for line in text.splitlines() if len(line) > width] == []


def test_it_fits_its_width_in_chinese_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_LANG", "zh")
    text = help.text(Sources(), [*SPIRALS, "epochs=7"], 80)
    assert "\n  epochs                    7             遍历训练集的次数（整数（轮）>= 1）\n" in text
    assert [line for line in text.splitlines() if cell_len(line) > 80] == []


def test_it_has_every_knob_with_its_value_and_unit() -> None:
    text = help.text(Sources(), [*SPIRALS, "epochs=7"], 120)
    for cls, prefix in ((cfg.Data, "data."), (cfg.Mlp, "model."), (cfg.Record, "record.")):
        for field in dataclasses.fields(cls):
            assert f"\n  {prefix}{field.name} " in text
    for key in ("name", "warmup", *cfg.SCHEDULE_KEYS["step"]):
        assert f"\n  schedule.{key} " in text
    epochs = "epochs                    7             passes over the training split (a whole number of epochs >= 1)"
    assert f"\n  {epochs}" in text
    assert "experiment=" in text
    assert "cifar10, clusters, csv, custom, digits" in text
    assert not any(f"{group}=" in text for group in FOLLOWING)


def test_it_shows_what_is_handed_to_a_class() -> None:
    text = help.text(Sources(), ["optimizer=nadam"], 100)
    assert "\n  optimizer.momentum_decay  0.004         handed to torch.optim.NAdam" in text


def test_it_says_what_a_chosen_file_says_of_itself() -> None:
    text = help.text(Sources(), ["data=mnist", "experiment=he_2015", "epochs=3"], 130)
    for path in ("data/mnist", "experiment/he_2015"):
        comments = [line for line in (CONF / f"{path}.yaml").read_text().splitlines() if line.startswith("# ")]
        assert all(f"  {line[2:]}\n" in text for line in comments if "@package" not in line)
    assert "@package" not in text


def test_every_field_says_what_it_means() -> None:
    optimizers, schedules = (cfg.TorchOptimizer, cfg.CustomOptimizer), (cfg.NamedSchedule, cfg.CustomSchedule)
    for cls in (cfg.Config, cfg.Data, cfg.Mlp, cfg.CustomModel, *optimizers, *schedules, cfg.Loss, cfg.Record):
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            options = typing.get_args(hints[field.name]) or (hints[field.name],)
            is_group = dataclasses.is_dataclass(options[0])
            assert is_group or field.metadata.get("help")
