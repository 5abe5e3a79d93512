"""The typed configuration: every file of conf/ passes, every mistake is told in words, all mistakes at once."""

from typing import Any

import pytest

from tests.helpers import composed
from trainer import config as cfg
from trainer.cli.config_files import CONF, FOLLOWING
from trainer.config import ConfigError, from_dict, nearest, to_dict
from trainer.core.seeds import stream_seed

FILES = sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if path.parent.name not in FOLLOWING)
ALONE = {  # what goes with a file that is no choice by itself
    "model=custom": ["model._target_=my_models.ConvNet"],
    "model=surface": ["problem=beale"],
    "optimizer=custom": ["optimizer._target_=my_opt.Lion"],
    "schedule=custom": ["schedule._target_=my_schedules.wave"],
    "data=point": ["problem=beale"],
    "data=csv": ["data.path=my.csv", "data.target=y"],
    "data=npz": ["data.path=my.npz"],
    "data=folder": ["data.path=my_pictures"],
    "data=custom": ["data._target_=my_data.load"],
    "data=sklearn": ["data.dataset=wine"],
    "data=torchvision": ["data.dataset=SVHN"],
    "problem=custom": ["model.function=my.f", "model.start=[1,2]"],
}


@pytest.fixture(scope="module")
def default() -> dict[str, Any]:
    return composed()


def changed(raw: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of `raw` with these dotted keys set; a value of ... removes the key."""
    out = {key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
    for dotted, value in changes.items():
        *path, key = dotted.split(".")
        place = out
        for part in path:
            place = place[part]
        if value is ...:
            del place[key]
        else:
            place[key] = value
    return out


@pytest.mark.parametrize("choice", FILES)
def test_every_file_composes_and_passes(choice: str) -> None:
    config = from_dict(composed(choice, *ALONE.get(choice, [])))
    assert from_dict(to_dict(config)) == config
    text = (CONF / f"{choice.replace('=', '/')}.yaml").read_text()
    assert any(line.startswith("# ") and "@package" not in line for line in text.splitlines()), "says what it is"


def test_every_experiment_opens_with_its_command() -> None:
    for path in (CONF / "experiment").glob("*.yaml"):
        package, command, *_ = path.read_text().splitlines()
        assert package == "# @package _global_"
        assert command.startswith(f"# python -m trainer experiment={path.stem}")
        from_dict(composed(*command.split()[4:]))


@pytest.mark.parametrize("data", sorted(path.stem for path in (CONF / "data").glob("*.yaml")))
def test_a_choice_of_data_changes_data_alone(data: str, default: dict[str, Any]) -> None:
    """Else `-m data=digits,mnist` would compare two networks, budgets or learning rates."""
    other = composed(f"data={data}")
    assert {key for key in default if other[key] != default[key]} <= {"data"}
    for key in ("batch_size", "train_size", "label_noise", "drop_last", "shuffle"):
        assert other["data"][key] == default["data"][key]


MISTAKES = {
    "epochs: found 0, expected a whole number of epochs >= 1": {"epochs": 0},
    "epochs: found 1.5, expected a whole number of epochs >= 1": {"epochs": 1.5},
    "epochs: found 1000.0, expected a whole number of epochs >= 1; write 1000": {"epochs": 1e3},
    "epochs: found ten, expected a whole number of epochs >= 1": {"epochs": "ten"},
    "epochs: found nothing, expected a whole number of epochs >= 1": {"epochs": ""},
    "epochs: found null, expected a whole number of epochs >= 1": {"epochs": None},
    "epochs: found true, expected a whole number of epochs >= 1": {"epochs": True},
    "epochs: missing; give it a value, epochs=VALUE (passes over the training split)": {"epochs": ...},
    "steps: found 0, expected a whole number of steps >= 1, or null": {"steps": 0},
    "seed: found -1, expected a whole number >= 0 and < 2^63": {"seed": -1},
    "zz: no such key; choose from accumulate, check, checkpoint, clip_norm, data, deterministic, device, "
    "early_stopping, epochs, loss, metrics, model, optimizer, record, schedule, seed, step, steps, threads": {"zz": 1},
    "data.batch_sise: no such key; did you mean batch_size?": {"data.batch_sise": 1},
    "data.root: found null, expected a string": {"data.root": None},
    "data.label_noise: found 1.5, expected a number >= 0 and <= 1": {"data.label_noise": 1.5},
    "data.val_fraction: found 1, expected a number >= 0 and < 1": {"data.val_fraction": 1},
    "data.drop_last: found 1, expected true or false": {"data.drop_last": 1},
    "data.train_size: found 0, expected a whole number of examples >= 1, or null": {"data.train_size": 0},
    "data.examples: no such key; did you mean name?": {"data.examples": 50},
    "data: found [1,null], expected a group of keys, set one by one: data.name=VALUE": {"data": [1, None]},
    "model.width: found [64,a], expected a whole number or a list such as [64,32] of units >= 1": {
        "model.width": [64, "a"]
    },
    "model.width: found [64,0], expected a whole number or a list such as [64,32] of units >= 1": {
        "model.width": [64, 0]
    },
    "model.width: found 3 widths for model.depth=2 hidden layers, expected one a layer; try model.depth=3, or one "
    "number for all": {"model.width": [3, 2, 1]},
    "model.activation: found rellu, expected one of relu, tanh, sigmoid, gelu, silu; did you mean relu?": {
        "model.activation": "rellu"
    },
    "model.activation: found 3, expected one of relu, tanh, sigmoid, gelu, silu": {"model.activation": 3},
    "model._target_: stands beside the keys of model=mlp; choose model=custom as well, model=custom "
    "model._target_=my.Net": {"model._target_": "my.Net"},
    "model._target_: missing; give it a value, model._target_=VALUE (dotted path of a torch.nn.Module class or "
    "function, e.g. my_models.ConvNet)": {"model": {"_target_": "???"}},
    "optimizer.lr: found -1, expected a number >= 0": {"optimizer.lr": -1},
    "optimizer.lr: found nan, expected a number >= 0; it must be finite": {"optimizer.lr": float("nan")},
    "optimizer.lr: found inf, expected a number >= 0; it must be finite": {"optimizer.lr": float("inf")},
    "optimizer.betas: found [0.9,1.5], expected a list of numbers >= 0 and < 1, or null": {
        "optimizer.betas": [0.9, 1.5]
    },
    "optimizer.betas: found 1 numbers, expected two, e.g. [0.9,0.999]": {"optimizer.betas": [0.9]},
    "schedule.step_size: constant has no such key; choose schedule=step": {"schedule.step_size": 3},
    "schedule: step wants step_size (epochs) and gamma; try schedule=step": {"schedule.name": "step"},
    "loss.name: cross_entropy wants classes, and data=line is a regression; try loss.name=mse": {
        "data.name": "line",
        "loss.name": "cross_entropy",
    },
    "data.label_noise: a regression has no labels to redraw; set it to 0 and use data.noise": {
        "data.name": "line",
        "data.label_noise": 0.5,
    },
    "loss.label_smoothing: only cross-entropy can be smoothed; set it to 0": {
        "loss.name": "mse",
        "loss.label_smoothing": 0.1,
    },
    "loss.name: bce wants classes, and data=line is a regression; try loss.name=mse": {
        "data.name": "line",
        "loss.name": "bce",
    },
    "loss.delta: auto has none; choose loss.name=huber, or leave it out": {"loss.delta": 1},
    "loss.gamma: huber has none; choose loss.name=focal, or leave it out": {"loss.name": "huber", "loss.gamma": 1},
    "loss.delta: found 0, expected a number > 0, or null": {"loss.name": "huber", "loss.delta": 0},
    "loss._target_: stands beside loss.name=mse; leave out one of them": {"loss._target_": "my.f", "loss.name": "mse"},
    "loss.gama: no such key; did you mean gamma?": {"loss.gama": 2},
    "metrics: found f1, expected a list such as [f1,auroc]": {"metrics": "f1"},
    "metrics: found aucroc; did you mean auroc?; a function of your own is written with its module, my_metrics.f": {
        "metrics": ["f1", "aucroc"]
    },
    "metrics: f1 stands there 2 times; give each a name of its own": {"metrics": ["f1", "my.f1"]},
    "metrics: last_f1 is a name that other numbers of a run have; give your function another": {
        "metrics": ["my.last_f1"]
    },
    "early_stopping.monitor: a regression has no accuracy; try early_stopping.monitor=val/loss": {
        "data.name": "line",
        "early_stopping.monitor": "val/accuracy",
    },
    "early_stopping.monitor: found val_loss, expected one of val/loss, val/accuracy, verdict, health; "
    "did you mean val/loss?": {"early_stopping.monitor": "val_loss"},
    "early_stopping.patience: data.val_fraction=0 leaves nothing to monitor; try early_stopping.patience=null, or "
    "data.val_fraction=0.1": {"early_stopping.patience": 3, "data.val_fraction": 0},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_each_mistake_in_words(message: str, default: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        from_dict(changed(default, MISTAKES[message]))
    assert error.value.problems == [message]
    assert str(error.value) == message


def test_every_dotted_path_is_listed_wherever_it_stands(default: dict[str, Any]) -> None:
    assert from_dict(default).targets() == {}
    paths = {"loss._target_": "my.loss", "metrics": ["f1", "my.top2", "other.rate"]}
    config = from_dict(changed(default, paths))
    assert list(config.targets().values()) == ["my.loss", "my.top2", "other.rate"]
    assert from_dict(to_dict(config)) == config


def test_all_mistakes_at_once(default: dict[str, Any]) -> None:
    mistakes = {"epochs": 0, "data.batch_size": "x", "model.dropout": 1, "record.evry": 2, "optimizer.lr": ...}
    with pytest.raises(ConfigError) as error:
        from_dict(changed(default, mistakes))
    assert error.value.problems == [
        "epochs: found 0, expected a whole number of epochs >= 1",
        "data.batch_size: found x, expected a whole number of examples >= 1",
        "model.dropout: found 1, expected a number >= 0 and < 1",
        "optimizer.lr: missing; give it a value, optimizer.lr=VALUE (learning rate)",
        "record.evry: no such key; did you mean every?",
    ]


def test_ends_of_ranges_are_allowed(default: dict[str, Any]) -> None:
    allowed = {"data.label_noise": 1, "data.val_fraction": 0, "optimizer.lr": 0, "model.depth": 0, "record.every": 0}
    config = from_dict(changed(default, allowed))
    assert config.data.label_noise == 1.0
    assert isinstance(config.data.label_noise, float)


def test_flat_has_a_dot_for_each_level(default: dict[str, Any]) -> None:
    flat = from_dict(default).flat()
    assert list(flat)[:3] == ["seed", "epochs", "steps"]
    assert flat["optimizer.betas"] == [0.9, 0.999]
    assert flat["model.activation"] == "relu"
    assert "optimizer.momentum" not in flat


def test_arguments_of_a_class_are_kept_and_handed_on(default: dict[str, Any]) -> None:
    config = from_dict(changed(default, {"optimizer.maximize": True}))
    assert config.optimizer.keywords()["maximize"] is True
    assert "momentum" not in config.optimizer.keywords()
    model = from_dict(changed(default, {"model": {"_target_": "my.Net", "channels": 3}})).model
    assert model == cfg.CustomModel(_target_="my.Net", arguments={"channels": 3})


def test_widths() -> None:
    assert from_dict(composed("model.depth=3")).model.widths == [64, 64, 64]  # type: ignore[union-attr]
    assert from_dict(composed("model.width=[8,4]")).model.widths == [8, 4]  # type: ignore[union-attr]
    assert from_dict(composed("model.depth=0")).model.widths == []  # type: ignore[union-attr]


def test_streams_are_separate_and_stay_what_they_are() -> None:
    """A golden value: another stream here is another run for every seed there is."""
    assert stream_seed(0, "order") == 2305520237214888859
    assert len({stream_seed(seed, purpose) for seed in range(50) for purpose in ("split", "order", "dropout")}) == 150


def test_nearest() -> None:
    assert nearest("optimiser", ["optimizer", "data"]) == "did you mean optimizer?"
    assert nearest("zzz", ["b", "a"]) == "choose from a, b"


def test_no_experiment_takes_dropout_from_the_default_network() -> None:
    for path in (CONF / "experiment").glob("*.yaml"):
        assert from_dict(composed(f"experiment={path.stem}")).flat()["model.dropout"] == (
            {"garbin_dropout": 0.5, "keras_mnist_mlp": 0.2}.get(path.stem, 0.0)
        )
