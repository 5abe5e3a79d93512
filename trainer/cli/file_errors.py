"""What is wrong inside configuration files: the file, the line, the mistake. Asked only where composing has failed."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from trainer.cli.config_files import CONF, Sources, parse
from trainer.config import MISSING, Config, ConfigError, closest, nearest
from trainer.text import key_of

PACKAGE = re.compile(r"\s*#\s*@package\s+(\S+)")
KEYWORDS = {"optional", "override"}
NULL = {"", "~", "null"}
PLUGINS = {  # option of hydra/sweeper and hydra/launcher -> what to install for it
    "hydra/sweeper": {name: f"hydra-{name}-sweeper" for name in ("optuna", "ax", "nevergrad")},
    "hydra/launcher": {
        **{name: f"hydra-{name}-launcher" for name in ("joblib", "ray", "rq")},
        **dict.fromkeys(("submitit", "submitit_local", "submitit_slurm"), "hydra-submitit-launcher"),
        **dict.fromkeys(("ray_aws", "ray_jobs"), "hydra-ray-launcher"),
    },
}
TOP_KEYS = {f.name for f in fields(Config)} | {"hydra"}


@dataclass
class Survey:
    """The configuration files of a command line, those that files of theirs choose included."""

    sources: Sources
    typed: dict[str, str]  # group -> option, from the command line
    problems: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)  # dotted key that these files hold -> its text; of a list none
    origins: dict[str, str] = field(default_factory=dict)  # dotted key -> "file, line n" that sets it
    known: set[str] = field(default_factory=set)  # groups that the first file chooses from
    surveyed: set[str] = field(default_factory=set)

    def file(self, path: str, above: tuple[str, ...] = ()) -> None:
        """Survey a configuration such as optimizer/adam, and what its defaults list names. above: who names it."""
        file = self.sources.find(path)
        if path in above:
            self.problems.append(f"{file}: includes itself, by way of {' -> '.join([*above, path])}")
        if file is None or path in self.surveyed:
            return
        self.surveyed.add(path)
        try:
            text, root = _read(file)
        except ConfigError as error:
            self.problems += error.problems
            return
        group = path.rpartition("/")[0]
        package = self._package(file, text, group)
        for key, value in _values(root):
            dotted = ".".join(filter(None, (package, key)))
            self.keys[dotted] = str(value.value) if isinstance(value, ScalarNode) else ""
            if file != CONF / "config.yaml" and value.value != MISSING:  # else nobody chose the value yet
                self.origins[dotted] = _at(file, value)
        for key, value in root.value:
            if key.value == "defaults":
                self._defaults(file, group, value, (*above, path))

    def _package(self, file: Path, text: str, group: str) -> str:
        """Return the key below which Hydra puts a file's keys; empty for the top."""
        if text.startswith("\ufeff"):
            self.problems.append(f"{file}, line 1: begins with a byte order mark; save the file as UTF-8 without it")
        text = text.lstrip("\ufeff")
        comments = re.match(r"(?:[^\S\n]*(?:#.*)?\n)*", text + "\n")
        found = PACKAGE.search(comments.group() if comments else "")
        package = (found.group(1) if found else "_group_").replace("_group_", group.replace("/", "."))
        if package in ("", "_global_"):
            return ""
        if package.partition(".")[0] not in TOP_KEYS:
            where = f"{file}, line {text[: found.start(1)].count(chr(10)) + 1 if found else 1}"
            said = f"found '# @package {package}', expected" if found else "begins without"
            told = f"its keys would be put below '{package}', where nothing reads them"
            self.problems.append(f"{where}: {said} '# @package _global_'; {told}")
        return package

    def _defaults(self, file: Path, group: str, entries: Node, above: tuple[str, ...]) -> None:
        """Survey a defaults list and the files it names."""
        if not isinstance(entries, SequenceNode):
            self.problems.append(f"{_at(file, entries)}: defaults: expected a list, one line '- GROUP: OPTION' each")
            return
        last_override = ""
        if len(own := [entry for entry in entries.value if entry.value == "_self_"]) > 1:
            self.problems.append(f"{_at(file, own[1])}: _self_ stands here a second time")
        for entry in entries.value:
            where = _at(file, entry)
            if isinstance(entry, MappingNode) and len(entry.value) == 1:
                ((key, value),) = entry.value
                words = key.value
            elif isinstance(entry, ScalarNode):
                words, value = entry.value, None
            else:
                self.problems.append(f"{where}: expected one choice, - GROUP: OPTION, or the name of a file")
                continue
            *keywords, name = words.split() or [""]
            if wrong := [word for word in keywords if word not in KEYWORDS]:
                self.problems.append(f"{where}: {wrong[0]}: no such keyword; {nearest(wrong[0], KEYWORDS)}")
                continue
            if "override" in keywords:
                last_override = words
            elif last_override and name != "_self_":
                self.problems.append(f"{where}: {name} stands below '{last_override}'; overrides come last")
            if value is not None:
                self._choice(where, group, name, value, keywords, above)
            elif name != "_self_":
                self._nested(where, _path(group, name.partition("@")[0]), "optional" in keywords, above)

    def _choice(
        self, where: str, group: str, name: str, value: Node, keywords: list[str], above: tuple[str, ...]
    ) -> None:
        """Survey one line of a defaults list: a group and the option chosen from it."""
        plain = name.partition("@")[0]
        chosen = _path(group, plain)
        options = self.sources.options(chosen)
        if not options:
            hint = f"write /{plain}" if plain in self.sources.groups else nearest(chosen, self.sources.groups)
            self.problems.append(f"{where}: {name}: no such group; {hint}")
            return
        if above == (self.sources.name,):
            self.known.add(chosen)
        elif chosen in self.known and "override" not in keywords and "@" not in name:
            self.problems.append(f"{where}: {name} is chosen already; write 'override {name}' to choose another option")
            return
        for one in value.value if isinstance(value, SequenceNode) else [value]:
            option = one.value if isinstance(one, ScalarNode) else "a group of keys"
            if "${" in option or option == MISSING or (option in NULL and chosen not in TOP_KEYS):
                continue
            if option.removesuffix(".yaml") in options:
                if chosen not in self.typed:  # else the command line has another
                    self.file(f"{chosen}/{option}", above)
            elif "optional" not in keywords:
                hint = no_option(chosen, option, options)
                self.problems.append(f"{where}: {name}: no option {option or 'null'}; {hint}")

    def _nested(self, where: str, path: str, is_optional: bool, above: tuple[str, ...]) -> None:
        """Survey a file that a defaults list names without a group."""
        if self.sources.find(path) is not None:
            self.file(path, above)
        elif not is_optional:
            folder, _, name = path.rpartition("/")
            self.problems.append(f"{where}: {name}: no such file; {nearest(name, self.sources.options(folder))}")


def no_option(key: str, choice: str, options: Iterable[str]) -> str:
    """Say what to type instead of an option that a group does not have: another, or what to install first."""
    package = PLUGINS.get(key, {}).get(choice)
    return f"pip install {package}" if package else nearest(choice, options)


def survey(sources: Sources, overrides: Sequence[str]) -> Survey:
    """Survey the files that a command line chooses."""
    typed: dict[str, str] = {}
    for text in overrides:
        override = parse(text)
        if override is not None and override.key_or_group in sources.groups and not override.is_sweep_override():
            typed[override.key_or_group] = str(override.value())
    found = Survey(sources, typed)
    found.file(sources.name)
    for group, option in typed.items():
        found.file(f"{group}/{option}", (sources.name,))
    return found


def survey_options(sources: Sources, overrides: Sequence[str], group: str, options: Iterable[str]) -> list[Survey]:
    """Survey the files that a command line chooses, with each of a group's options: what they share is read once."""
    shared = survey(sources, [*overrides, f"{group}=null"])
    found = []
    for option in options:
        one = copy.deepcopy(shared, {id(sources): sources})
        one.file(f"{group}/{option}", (sources.name,))
        found.append(one)
    return found


def located(problems: Sequence[str], found: Survey, overrides: Sequence[str]) -> list[str]:
    """Add to each problem the file and line that set its key, unless the command line does."""
    typed = set(map(key_of, overrides))
    out = []
    for problem in problems:
        key = problem.partition(":")[0]
        place = None if key in typed else found.origins.get(key)
        if place and closest(key, ["defaults"], 0.9):
            problem = f"{key}: no such key; did you mean defaults?"
        out.append(f"{problem} ({place})" if place else problem)
    return out


def _read(file: Path) -> tuple[str, MappingNode]:
    """Read a file's text and its keys. Raises ConfigError."""
    values = list[tuple[str, Node]]()
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text, yaml.SafeLoader) or MappingNode("", [])  # an empty file
        if not isinstance(root, MappingNode):
            kind = "a list" if isinstance(root, SequenceNode) else "a single value"
            raise ConfigError([f"{_at(file, root)}: found {kind}, expected lines KEY: VALUE"])
        values += _values(root)
        OmegaConf.load(file)  # its reader refuses more
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError([f"{file}, line {line}: is not UTF-8; save the file as UTF-8"]) from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        said = "indented with a tab; YAML takes spaces only" if "'\\t'" in str(error.problem) else error.problem
        raise ConfigError([f"{file}{line}: {said}"]) from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        key = str(getattr(error, "full_key", None) or "")
        place = next((_at(file, node) for dotted, node in values if dotted == key), file)
        said = " ".join(str(error).splitlines()[0].split())
        raise ConfigError([f"{place}: {f'{key}: ' if key else ''}{said}"]) from error
    return text, root


def _values(root: MappingNode, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """Yield (dotted key, value) of every value but the defaults list."""
    for key, value in root.value:
        dotted = f"{prefix}{key.value}"
        if isinstance(value, MappingNode):
            yield from _values(value, f"{dotted}.")
        elif dotted != "defaults":
            yield dotted, value


def _path(group: str, name: str) -> str:
    """Resolve a name in a defaults list: it is relative to the file's own group, unless it begins with /."""
    return name[1:] if name.startswith("/") else f"{group}/{name}".lstrip("/")


def _at(file: Path, node: Node) -> str:
    return f"{file}, line {node.start_mark.line + 1}"
