"""Configuration files: where they are looked for, which options there are, and composing one configuration."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trainer.config import Config

_CHECKOUT = Path(__file__).parents[2] / "conf"
_INSTALLED = Path(__file__).parents[1] / "conf"  # inside a wheel
CONF = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED
FOLLOWING = {"optimizer_model"}  # groups whose option follows from other choices: no one chooses it
HYDRA_VERSION = "1.3"  # whose rules for configuration files hold
GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()} - FOLLOWING - {"hydra"}
OWN_CONF = Path("conf")  # in the current folder, found by itself
SINGLE_KEYS = {f.name for f in fields(Config) if "help" in f.metadata}  # which a group of that name would hide


@dataclass(frozen=True)
class Found:
    """The user's own conf/ in the current folder: what it adds to our groups, and what of it is not read."""

    options: dict[str, list[str]] = field(default_factory=dict)  # group -> names of files
    ours: list[Path] = field(default_factory=list)  # files of other content under a name of ours, which are not read
    hiding: list[str] = field(default_factory=list)  # folders that would change ours: nothing can be read

    @property
    def said(self) -> str:
        """Say in one line what was found."""
        if self.hiding:
            why = f"its folder {self.hiding[0]} would change what {self.hiding[0]} means"
            return (
                f"{OWN_CONF}/ is not read: {why}; rename it, or keep files for this trainer elsewhere, --config-dir=DIR"
            )
        parts = [f"{group}={','.join(names)}" for group, names in self.options.items()]
        added = [f"adds {' '.join(parts)}"] if parts else []
        names = ", ".join(map(str, self.ours))
        kept = [f"{names} not read, ours has that name; choose another"] if self.ours else []
        return f"{OWN_CONF}/ in this folder: {'; '.join([*added, *kept])}"

    @property
    def is_read(self) -> bool:
        """Whether it adds anything, and may be read."""
        return bool(self.options) and not self.hiding

    def is_chosen(self, overrides: Iterable[str]) -> bool:
        """Whether any of these overrides, swept ones too, chooses a file of it."""
        parsed = [override for text in overrides if (override := parse(text)) is not None]
        return any(set(values_of(one)) & set(self.options.get(one.key_or_group, ())) for one in parsed)


def find_own(name: str | None) -> Found | None:
    """Look for a conf/ in the current folder that adds to our groups; None where there is none, or it is ours.

    name: the file to begin with, if it was typed. It may be the conf/ of another application of Hydra's: other groups
    and its config.yaml are none of our business.
    """
    if not OWN_CONF.is_dir() or OWN_CONF.resolve() == CONF.resolve():
        return None
    found = Found()
    for group in sorted(GROUPS):
        for file in sorted((OWN_CONF / group).glob("*.yaml")):
            if not (ours := CONF / group / file.name).is_file():
                found.options.setdefault(group, []).append(file.stem)
            elif ours.read_bytes() != file.read_bytes():
                found.ours.append(file)
    if name is not None and (OWN_CONF / f"{name}.yaml").is_file() and not (CONF / f"{name}.yaml").is_file():
        found.options["--config-name"] = [name]
    if found.options:
        found.hiding.extend(sorted(name for name in SINGLE_KEYS | FOLLOWING if (OWN_CONF / name).is_dir()))
    return found if found.options or found.ours else None


@dataclass(frozen=True)
class Sources:
    """The folders that configuration files are read from: `conf`, then `others`; `name` is the file to begin with."""

    conf: Path = CONF
    name: str = "config"
    others: tuple[str, ...] = ()  # as Hydra writes them: file:///home/me/conf, pkg://package.conf
    only_ours: bool = False  # no groups but ours are shown: `others` may be another application's

    def loader(self, kind: type[ConfigLoaderImpl] = ConfigLoaderImpl) -> ConfigLoaderImpl:
        """Make Hydra's loader for these files."""
        version.setbase(HYDRA_VERSION)
        setup_globals()
        search_path = create_config_search_path(str(self.conf))
        for other in self.others:
            search_path.prepend("command-line", other, SearchPathQuery(provider="schema"))
        return kind(search_path)

    @functools.cached_property
    def _files(self) -> IConfigRepository:
        """The files themselves: the loader would copy all that it knows for each question."""
        return self.loader().repository

    @functools.cached_property
    def groups(self) -> dict[str, set[str]]:
        """Each group that can be chosen from on the command line, with its options."""
        names = set(self._files.get_group_options("", ObjectType.GROUP)) - FOLLOWING - {"hydra"}
        names &= GROUPS if self.only_ours else names
        return {name: self.options(name) for name in sorted(names)}

    def find(self, path: str) -> Path | None:
        """Find the file of a configuration such as optimizer/adam; None where no folder has it."""
        for source in self._files.get_sources():
            file = Path(source.path) / f"{path.removesuffix('.yaml')}.yaml"
            if source.scheme() == "file" and file.is_file():
                return file
        return None

    def options(self, group: str) -> set[str]:
        """List the options of any group, also of those that cannot be chosen from."""
        return set(self._files.get_group_options(group, ObjectType.CONFIG))

    def compose(self, overrides: Iterable[str]) -> dict[str, Any]:
        """Compose these files and overrides into plain values, as Hydra does."""
        composed = self._load(self.with_pluses(list(overrides)))
        with_hydra = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=False))
        task = OmegaConf.masked_copy(composed, [key for key in with_hydra if key != "hydra"])
        return cast(dict[str, Any], OmegaConf.to_container(task, resolve=True, throw_on_missing=False))

    def with_pluses(self, overrides: Sequence[str]) -> list[str]:
        """Write a plus before each argument of a class or function of the user's own, as Hydra wants it of new keys."""
        if not self.may_be_own(overrides):
            return list(overrides)
        parsed = {text: parse(text) for text in overrides}
        values = {
            text: override.key_or_group
            for text, override in parsed.items()
            if override is not None and not (override.is_add() or override.is_delete() or override.package)
            if "." in override.key_or_group and not override.key_or_group.startswith("hydra.")
        }
        if all(key.endswith("._target_") for key in values.values()):
            return list(overrides)
        first = [text for text in overrides if values.get(text, "._target_").endswith("._target_")]
        try:
            tree = cast(dict[str, Any], OmegaConf.to_container(self._load(first), resolve=False))
        except Exception:  # whoever composes all of them says what is wrong
            return list(overrides)
        return [f"+{text}" if text in values and is_argument(values[text], tree) else text for text in overrides]

    def may_be_own(self, overrides: Iterable[str]) -> bool:
        """Whether these overrides, or files beside ours, may name a class or function of the user's own."""
        return self != Sources() or any("_target_" in text or "custom" in text for text in overrides)

    def _load(self, overrides: list[str]) -> DictConfig:
        return self.loader().load_configuration(self.name, overrides, RunMode.RUN, from_shell=False)


@functools.cache
def parse(text: str) -> Override | None:
    """Read an override as Hydra does; None where it cannot be read."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def values_of(override: Override) -> list[str]:
    """List the values of an override, one or several, as they are typed."""
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    return ["null" if value is None else str(value) for value in values]


def is_argument(key: str, tree: Mapping[str, Any]) -> bool:
    """Whether a dotted key that a configuration does not hold may be an argument of a class of the user's own."""
    group, _, rest = key.partition(".")
    node = tree.get(group)
    return isinstance(node, Mapping) and rest.partition(".")[0] not in node and is_own(node.get("_target_"))


def is_own(target: object) -> bool:
    """Whether a _target_ is, or waits for, a class or function of the user's own: any argument may be one of its."""
    return isinstance(target, str) and not target.startswith("torch.optim.")


class VisibleOptions(ConfigLoaderImpl):
    """Hydra's loader for tab completion: it offers no group that follows from other choices, or is not ours."""

    hidden: set[str] = FOLLOWING

    def get_group_options(self, group_name: str, *arguments: Any, **keywords: Any) -> Sequence[str]:  # type: ignore[override]
        """List the options of a group, or the groups, that can be typed."""
        if group_name in self.hidden:
            return []
        names = super().get_group_options(group_name, *arguments, **keywords)
        return [name for name in names if group_name or name not in self.hidden]
