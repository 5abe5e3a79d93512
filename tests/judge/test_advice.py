"""Cures as overrides: they change something, the configuration takes them, and no rule speaks where it has no cause."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import make_config
from trainer.cli.app import configure
from trainer.config import Config
from trainer.cure.trial import applied
from trainer.judge import advice
from trainer.judge.advice import ADVICE

CHOICES = {
    "model.activation": ["relu", "tanh", "sigmoid", "gelu"],
    "model.depth": ["0", "1", "12"],
    "model.batchnorm": ["false", "true"],
    "model.init": ["default", "he_normal", "glorot_uniform", "normal"],
    "model.init_scale": ["1", "0.1", "20"],
    "model.bias_init": ["null", "0", "-20"],
    "model.dropout": ["0", "0.9"],
    "optimizer": ["sgd", "adam", "adamw", "rmsprop", "adagrad"],
    "optimizer.lr": ["0", "1e-8", "0.001", "0.1", "1e9"],
    "optimizer.weight_decay": ["0", "1e-4", "50"],
    "clip_norm": ["null", "1e-7", "5"],
    "data": ["digits", "line"],
    "data.batch_size": ["1", "64"],
    "data.normalisation": ["none", "standard"],
}
TYPED = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in CHOICES.items()})


def composed(typed: list[str]) -> Config:
    """What the command line would give, from few compositions: groups are chosen, keys are set."""
    parts = [text.partition("=") for text in typed]
    values = {key: yaml.safe_load(f"{value}") for key, _, value in parts if "." in key or key == "clip_norm"}
    values = {key: float(value) if str(value).startswith("1e") else value for key, value in values.items()}
    return make_config(*(f"{key}={value}" for key, _, value in parts if key not in values), **values)


@settings(max_examples=20, deadline=None)
@given(TYPED)
def test_every_cure_is_accepted_and_changes_something(values: dict[str, str]) -> None:
    typed = [f"{key}={value}" for key, value in values.items()]
    config = composed(typed)
    said = {tuple(cure.items()): cure for name in ADVICE for cure in advice.cures(name, config.flat()).values()}
    for cure in said.values():
        cured = composed(applied(typed, cure))
        assert cured != config, cure
        changed = {key for key, value in cured.flat().items() if config.flat().get(key) != value}
        assert changed == cure.keys() or not all("." in key or key == "clip_norm" for key in cure)  # or a group of keys


@pytest.mark.parametrize(
    ("finding", "typed", "expected"),
    [
        ("not_finite", ["optimizer=sgd", "optimizer.lr=1e9"], "optimizer.lr=0.1"),
        ("not_finite", ["optimizer=sgd", "optimizer.momentum=0.9", "optimizer.lr=1e9"], "optimizer.lr=0.01"),
        ("learning_rate_too_low", ["optimizer.lr=0"], "optimizer.lr=0.001"),
        ("learning_rate_too_low", ["clip_norm=1e-7"], "clip_norm=1"),
        ("weight_decay_dominates", ["optimizer=adamw", "optimizer.weight_decay=90"], "optimizer.weight_decay=0.01"),
        ("dead_units", ["model.bias_init=-20"], "model.bias_init=0"),
        ("dead_units", ["optimizer.lr=0.3"], "optimizer.lr=0.001"),
        ("dead_units", ["optimizer.lr=0.002"], "optimizer.lr=0.001"),
        ("dead_units", ["optimizer.lr=0.001"], "model.batchnorm=true"),  # a smaller rate wakes no unit up
        ("saturated_units", ["model.init_scale=30", "model.activation=tanh"],
         "model.init=glorot_uniform model.init_scale=1"),
        ("vanishing_gradients", ["model.depth=20"], "model.init=he_normal"),
        ("vanishing_gradients", ["model.depth=20", "model.init=he_normal"], "model.batchnorm=true"),
        ("oscillation", ["optimizer=sgd", "optimizer.momentum=0.99"], "optimizer.momentum=0.9"),
        ("labels_unrelated", ["data.label_noise=1"], "data.label_noise=0"),
        ("inputs_not_normalised", ["data.normalisation=none"], "data.normalisation=standard"),
    ],
)  # fmt: skip
def test_the_first_cure_undoes_what_is_odd(finding: str, typed: list[str], expected: str) -> None:
    first = next(iter(advice.cures(finding, configure(typed).flat()).values()))
    assert advice.written(first) == expected


@pytest.mark.parametrize(
    ("typed", "never"),
    [
        (["model=custom", "model._target_=my.Net"], {"model.batchnorm", "model.init", "model.depth"}),
        (["model.bias_init=0"], {"model.bias_init"}),
        (["model.depth=0"], {"model.batchnorm"}),
        (["data.batch_size=1"], {"model.batchnorm"}),
        (["optimizer=custom", "optimizer._target_=my.Lion", "optimizer.lr=3"], {"optimizer.weight_decay"}),
    ],
)
def test_no_cure_is_said_that_has_no_place(typed: list[str], never: set[str]) -> None:
    config = configure(typed).flat()
    said = {key for name in ADVICE for cure in advice.cures(name, config).values() for key in cure}
    assert not said & never


def test_a_sentence_is_made_of_the_first_cures() -> None:
    config: dict[str, Any] = make_config(**{"model.depth": 20, "model.activation": "sigmoid"}).flat()
    said = advice.sentence("vanishing_gradients", config)
    assert said.startswith("model.batchnorm=true, model.activation=relu with model.init=he_normal, ")
    assert advice.sentence("vanishing_gradients", {}) == ADVICE["vanishing_gradients"].words
    assert all(advice.words and advice.why for advice in ADVICE.values())


@pytest.mark.parametrize(
    ("finding", "typed", "said"),
    [
        ("vanishing_gradients", ["model.depth=20", "model.batchnorm=true"], "model.init=he_normal, or model.depth=5"),
        ("vanishing_gradients", ["model.depth=3", "model.batchnorm=true"], "model.init=he_normal, or fewer layers"),
        ("no_gradient", ["model=custom", "model._target_=my.Net"], "to check that forward uses it"),
        ("dead_units", ["model=custom", "model._target_=my.Net"], "to look at the biases"),
    ],
)
def test_a_sentence_says_a_thing_once(finding: str, typed: list[str], said: str) -> None:
    assert advice.sentence(finding, configure(typed).flat()).startswith(said)
