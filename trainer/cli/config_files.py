"""Configuration files: where they are looked for, which options there are, and composing one configuration."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import OmegaConf

_CHECKOUT = Path(__file__).parents[2] / "conf"
_INSTALLED = Path(__file__).parents[1] / "conf"  # inside a wheel
CONF = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED
FOLLOWING = {"optimizer_model"}  # groups whose option follows from other choices: no one chooses it
HYDRA_VERSION = "1.3"  # whose rules for configuration files hold


@dataclass(frozen=True)
class Sources:
    """The folders that configuration files are read from: `conf`, then `others`; `name` is the file to begin with."""

    conf: Path = CONF
    name: str = "config"
    others: tuple[str, ...] = ()  # as Hydra writes them: file:///home/me/conf, pkg://package.conf

    def loader(self, kind: type[ConfigLoaderImpl] = ConfigLoaderImpl) -> ConfigLoaderImpl:
        """Make Hydra's loader for these files."""
        version.setbase(HYDRA_VERSION)
        setup_globals()
        search_path = create_config_search_path(str(self.conf))
        for other in self.others:
            search_path.prepend("command-line", other, SearchPathQuery(provider="schema"))
        return kind(search_path)

    @functools.cached_property
    def groups(self) -> dict[str, set[str]]:
        """Each group that can be chosen from on the command line, with its options."""
        loader = self.loader()
        names = set(loader.list_groups("")) - FOLLOWING - {"hydra"}
        return {name: set(loader.get_group_options(name)) for name in sorted(names)}

    def find(self, path: str) -> Path | None:
        """Find the file of a configuration such as optimizer/adam; None where no folder has it."""
        for source in self.loader().get_sources():
            file = Path(source.path) / f"{path.removesuffix('.yaml')}.yaml"
            if source.scheme() == "file" and file.is_file():
                return file
        return None

    def options(self, group: str) -> set[str]:
        """List the options of any group, also of those that cannot be chosen from."""
        return set(self.loader().get_group_options(group, ObjectType.CONFIG))

    def compose(self, overrides: Iterable[str]) -> dict[str, Any]:
        """Compose these files and overrides into plain values, as Hydra does."""
        composed = self.loader().load_configuration(self.name, list(overrides), RunMode.RUN, from_shell=False)
        with_hydra = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=False))
        task = OmegaConf.masked_copy(composed, [key for key in with_hydra if key != "hydra"])
        return cast(dict[str, Any], OmegaConf.to_container(task, resolve=True, throw_on_missing=False))


class VisibleOptions(ConfigLoaderImpl):
    """Hydra's loader for tab completion: it offers no group that follows from other choices."""

    def get_group_options(self, group_name: str, *arguments: Any, **keywords: Any) -> Sequence[str]:  # type: ignore[override]
        """List the options of a group, or the groups, that can be typed."""
        if group_name in FOLLOWING:
            return []
        return [name for name in super().get_group_options(group_name, *arguments, **keywords) if name not in FOLLOWING]
