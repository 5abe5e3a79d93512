"""A sweep over several options of a group: each of its keys goes to the runs whose option has it.

`-m model=mlp,custom model._target_=my_models.Net model.depth=1,2`: only mlp waits for a depth, only custom for a class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.cli import file_errors
from trainer.cli.config_files import Sources, is_own, parse
from trainer.core import own_code
from trainer.text import key_of


@dataclass(frozen=True)
class Option:
    """One of the options of a group that a sweep has several of, with what its file holds: dotted key -> text."""

    name: str
    keys: Mapping[str, str]

    def has(self, key: str) -> bool:
        """Whether its file has a key, or keys below it."""
        return key in self.keys or any(known.startswith(f"{key}.") for known in self.keys)

    def waits_for(self, key: str) -> bool:
        """Whether its file leaves the value of a key to the command line."""
        return self.keys.get(key) == file_errors.MISSING


def settle(sources: Sources, jobs: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[str]]:
    """Leave out of each job the keys that are not its option's but another's, and jobs that equal an earlier one.

    jobs: overrides without lists. Returns the jobs, and notes of what was left out.
    """
    out, notes = [list(job) for job in jobs], list[str]()
    for group in sources.groups:
        chosen = dict.fromkeys(choice for job in jobs if (choice := _choice(group, job)))
        keys = dict.fromkeys(key for job in jobs for text in job if (key := key_of(text)).startswith(f"{group}."))
        if len(chosen) < 2 or not keys:
            continue
        others = [text for text in jobs[0] if key_of(text) in sources.groups and key_of(text) != group]
        surveys = file_errors.survey_options(sources, others, group, chosen)
        options = [Option(name, survey.keys) for name, survey in zip(chosen, surveys, strict=True)]
        out = [_for_option(group, options, job) for job in out]
        for key in keys:
            having = {_choice(group, job) for job in out if any(key_of(text) == key for text in job)}
            if len(having) < len(chosen) and not any(option.waits_for(key) for option in options):  # which all expect
                names = ",".join(name for name in chosen if name in having)
                notes.append(f"{key} concerns {group}={names} alone")
    by_meaning: dict[tuple[str, ...], list[str]] = {}
    for job in out:
        by_meaning.setdefault(tuple(map(_meaning, job)), job)
    kept = list(by_meaning.values())
    if len(kept) < len(out):
        notes.append(f"{len(out) - len(kept)} of {len(out)} runs are the same as others, and left out")
    return kept, notes


def deferred(sources: Sources, overrides: Sequence[str]) -> list[str]:
    """Write keys below a group that is swept, or may call the user's own code, as sweeps of one value.

    Hydra sets what is no sweep in its master configuration too, which has other options: only jobs have all of it.
    """
    parsed = {text: override for text in overrides if (override := parse(text)) is not None}
    is_own_code, out = sources.may_be_own(overrides), list[str]()
    swept = {override.key_or_group for override in parsed.values() if override.is_sweep_override()}
    for text in overrides:
        override = parsed.get(text)
        if override is not None and not (override.is_sweep_override() or override.is_delete()):
            group, dot, _ = override.key_or_group.partition(".")
            key, _, value = text.partition("=")
            if dot and group != "hydra" and (is_own_code or group in swept):
                text = f"{key}=choice({value or repr('')})"
        out.append(text)
    return out


def _for_option(group: str, options: Sequence[Option], job: list[str]) -> list[str]:
    choice = _choice(group, job)
    own = next((option for option in options if option.name == choice), None)
    if own is None:
        return job
    others = [option for option in options if option is not own]
    typed = next((text.partition("=")[2] for text in job if key_of(text) == f"{group}._target_"), "")
    target = typed if own.waits_for(f"{group}._target_") else own.keys.get(f"{group}._target_", "")
    return [
        text for text in job if not key_of(text).startswith(f"{group}.") or _is_for(key_of(text), own, others, target)
    ]


def _is_for(key: str, own: Option, others: Sequence[Option], target: str) -> bool:
    """Whether a key is for an option that calls `target`, not for others of its group; what none has is an error."""
    if own.waits_for(key) or own.has(key):
        return own.waits_for(key) or not any(option.waits_for(key) for option in others)
    group, name = key.split(".")[:2]
    if is_own(target) and target:
        return not any(option.has(key) for option in others) or own_code.takes(target, name)
    return not any(option.has(key) or is_own(option.keys.get(f"{group}._target_")) for option in others)


def _meaning(text: str) -> str:
    """Write an override so that two which say the same are equal: optimizer.lr=1e-2 and optimizer.lr=0.01."""
    override = parse(text)
    return text if override is None else f"{key_of(text)}={override.value()!r}"


def _choice(group: str, job: Sequence[str]) -> str:
    return next((text.partition("=")[2] for text in job if text.startswith(f"{group}=")), "")
