"""What a user names by a dotted path: imported and called so that every mistake in it is told in one line.

Whatever that code raises becomes a ConfigError with its file and line, also what would end the process.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import nn
from torch.utils.data import Dataset

from trainer.config import ConfigError, closest, nearest
from trainer.core import own_code

LONGEST_ERROR = 400  # characters; some of PyTorch's list every backend


@dataclass(frozen=True)
class Kind:
    """What a key may name: a class derived from `base`, or, where `functions`, a function of the user's own."""

    base: type | None
    words: str  # what is expected, with an example
    functions: bool = True


KINDS = {  # by the key, or its group; its example is what a message tells to type
    "model": Kind(
        nn.Module, "a torch.nn.Module class, or a function of your own that makes one, e.g. my_models.ConvNet"
    ),
    "data": Kind(
        Dataset, "a function of your own that returns (x, y), or a torch.utils.data.Dataset class, e.g. my_data.load"
    ),
    "model.function": Kind(None, "a function of your own that computes a number from its coordinates, e.g. my.f"),
    "loss": Kind(None, "a function (output, target) -> one loss per example, e.g. my_losses.pinball"),
    "metrics": Kind(None, "a function (output, target) -> one number, e.g. my_metrics.top2"),
    "optimizer": Kind(torch.optim.Optimizer, "a torch.optim.Optimizer class, e.g. my_opt.Lion", functions=False),
    "schedule": Kind(None, "a function of your own, from progress in [0, 1] to a factor, e.g. my_schedules.wave"),
}


def find_target(key: str, path: str) -> Callable[..., Any]:
    """Return the class or function of a dotted path; only its module's own code runs, by being imported.

    key: where it stands, such as model._target_. A function is the user's own, or stands in a package beside such
    classes: nothing of Python's standard library is ever called, nor what a module only imported from elsewhere.
    Raises ConfigError.
    """
    kind = KINDS.get(key) or KINDS[key.partition(".")[0]]
    module, _, name = path.rpartition(".")
    example = kind.words.rpartition("e.g. ")[2]
    is_class = example.rpartition(".")[2][0].isupper()
    expected = "expected module.Class, importable from this folder" if is_class else "expected module.function"
    if not module:
        shown = name.capitalize() if is_class else name
        raise ConfigError([f"{key}: found {name}, {expected}, e.g. {example.partition('.')[0]}.{shown}"])
    if own_code.is_standard(module):
        raise ConfigError([f"{key}: {path} is of Python's standard library; expected {kind.words}"])
    hints: dict[str, str] = {}
    with in_words(f"{key}: cannot import {path}", f"; {expected}", hints):
        code = importlib.import_module(module)
        if close := closest(name, vars(code), 0.7):
            hints["has no attribute"] = f"did you mean {close}?"
        target = getattr(code, name)
    if isinstance(target, type):
        if kind.base is None or not issubclass(target, kind.base):
            what = "is a class" if kind.base is None else f"is no {_dotted(kind.base)}"
            raise ConfigError([f"{key}: {path} {what}; expected {kind.words}"])
    elif not callable(target):
        raise ConfigError([f"{key}: {path} is a value, {type(target).__name__}; expected {kind.words}"])
    elif not kind.functions:
        raise ConfigError([f"{key}: {path} is a function; expected {kind.words}"])
    elif (home := _home(target)) != module and not (own_code.is_own(own_code.find(home)) or _share_top(home, module)):
        raise ConfigError([f"{key}: {path} is no function of {module}, but of {home}; expected {kind.words}"])
    return target


def parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return a target's parameters by name; none for what is written in C."""
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}


def check_arguments(group: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Raise ConfigError for arguments, keys of a group, that a target does not take."""
    known = parameters(target)
    if not known or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        return
    name = getattr(target, "__name__", str(target))
    problems = [
        f"{group}.{key}: {name} has no such argument; {nearest(key, known)}" for key in arguments if key not in known
    ]
    if problems:
        raise ConfigError(problems)


@contextlib.contextmanager
def in_words(what: str, expected: str = "", hints: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turn whatever the user's own code raises into a ConfigError, sys.exit() included.

    hints: part of an error's text -> what to do about it. Ctrl-C, which raises a class of its own, passes. The current
    folder, below which runs are written, stays what it was. os._exit raises too, except in a process forked meanwhile.
    """
    here, process, leave = os.getcwd(), os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and type(error) is not KeyboardInterrupt:
            raise
        if isinstance(error, ConfigError):  # said in words already
            raise
        known = {"does not have a deterministic implementation": "try deterministic=false", **(hints or {})}
        hint = "".join(f"; {hint}" for sign, hint in known.items() if sign in str(error))
        raise ConfigError([f"{what}: {describe_error(error)}{hint}{expected}"]) from error
    finally:
        os._exit = leave
        os.chdir(here)


def describe_error(error: BaseException) -> str:
    """An error of the user's own code in one line, with the place in that code where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = os.path.dirname(os.path.dirname(__file__))
    theirs = [
        frame
        for frame in frames
        if not frame.filename.startswith(("<", ours + os.sep))
        and "site-packages" not in frame.filename
        and "importlib" not in frame.filename
        and frame.filename != contextlib.__file__
    ]
    place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    said = textwrap.shorten(str(error), LONGEST_ERROR, placeholder=" ...")
    return f"{type(error).__name__}: {said}{place}" if said else f"{type(error).__name__}{place}"


def place(code: Callable[..., Any]) -> str:
    """' (file, line n)' where a function begins; nothing where its source is not there."""
    try:
        return f" ({inspect.getsourcefile(code)}, line {inspect.getsourcelines(code)[1]})"
    except (OSError, TypeError):
        return ""


def _dotted(cls: type) -> str:
    """The name a user knows a class of PyTorch by: torch.nn.Module, not torch.nn.modules.module.Module."""
    for package in ("torch.nn", "torch.optim", "torch.utils.data"):
        if cls.__module__.startswith(package):
            return f"{package}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__name__}"


def _home(function: object) -> str:
    """Return the module that a function was written in."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__module__", None) or type(function).__module__)


def _share_top(a: str, b: str) -> bool:
    return a.partition(".")[0] == b.partition(".")[0]
