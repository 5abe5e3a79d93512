"""A class or function of a notebook as the text of a module: its own source, and that of what it needs.

Source, not a pickle: workers import it as any module of the user's own, its hash is recorded, and whoever finds the
run later can read and resume it, without the notebook. What a name means is looked up when it is written: imports are
imported again, classes and functions of the notebook are copied, numbers and strings written down.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import symtable
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

from trainer.config import ConfigError

HEAD = '"""Written by trainer: out of a notebook or a script, to be imported by those who train."""\n'
ADVICE = "write it into a .py file in this folder and import it from there"


def module(key: str, target: Callable[..., Any]) -> str:
    """Return the text of a module that holds `target`, a class or function; `key` is what it was given for.

    Raises ConfigError where its source is not to be found, or it needs what no text can hold.
    """
    written = _Written(key)
    written.add(target.__name__, target)
    imports = "\n".join(sorted(written.imports))
    return "\n".join([HEAD, "from __future__ import annotations\n", imports, "", *written.parts]).rstrip() + "\n"


class _Written:
    """What a module has so far."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.imports: set[str] = set()
        self.parts: list[str] = []
        self.seen: dict[str, Any] = {}

    def add(self, name: str, value: Any) -> None:
        """Add a definition of `name` as `value`, behind what it needs."""
        if name in self.seen:
            if self.seen[name] is not value:
                raise ConfigError([f"{self.key}: {name} means two things in what it needs; {ADVICE}"])
            return
        self.seen[name] = value
        if isinstance(value, types.ModuleType):
            self.imports.add(f"import {value.__name__}" + (f" as {name}" if name != value.__name__ else ""))
        elif (home := _importable(value)) is not None:
            real = value.__name__
            self.imports.add(f"from {home} import {real}" + (f" as {name}" if name != real else ""))
        elif isinstance(value, type | types.FunctionType):
            self._copy(name, value)
        elif _is_literal(value):
            self.parts.append(f"{name} = {value!r}\n")
        else:
            what = f"{name}, a {type(value).__name__}, whose value no source can hold"
            raise ConfigError([f"{self.key}: it needs {what}; make it an argument, or {ADVICE}"])

    def _copy(self, name: str, value: Any) -> None:
        function = _function_of(value)
        if name == "<lambda>":
            raise ConfigError([f"{self.key}: found a lambda; give it a name, with def"])
        if value.__name__ != name or function is None:
            raise ConfigError([f"{self.key}: the source of {name} cannot be found; {ADVICE}"])
        if free := set(function.__code__.co_freevars) - {"__class__"}:
            why = f"uses {', '.join(sorted(free))} of the function that it is defined in"
            raise ConfigError([f"{self.key}: {name} {why}; define it outside, or {ADVICE}"])
        text = _source(value, function)
        if text is None:
            raise ConfigError([f"{self.key}: the source of {name} cannot be found; {ADVICE}"])
        there = function.__globals__
        for needed in sorted(_names(symtable.symtable(text, name, "exec"))):
            if needed in there and needed != name:
                self.add(needed, there[needed])
                self._submodules(needed, there[needed], text)
        self.parts.append(f"\n{text}\n")

    def _submodules(self, name: str, value: Any, text: str) -> None:
        """Import sklearn.metrics too, where that stands behind a name that is bound to sklearn."""
        if not isinstance(value, types.ModuleType):
            return
        for node in ast.walk(ast.parse(text)):
            dotted = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if dotted.startswith(f"{name}.") and f"{value.__name__}{dotted[len(name) :]}" in sys.modules:
                self.imports.add(f"import {value.__name__}{dotted[len(name) :]}")


def _importable(value: Any) -> str | None:
    """Return the module that a class or function can be imported from; None for one of the notebook, or a value."""
    home, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if not isinstance(home, str) or not isinstance(name, str) or home in ("__main__", builtins.__name__):
        return None
    return home if getattr(sys.modules.get(home), name, None) is value else None


def _is_literal(value: Any) -> bool:
    try:
        return ast.literal_eval(repr(value)) == value
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return False


def _function_of(value: Any) -> types.FunctionType | None:
    """Return a function itself, or a method that a class defines: what knows where its source is."""
    for one in vars(value).values() if isinstance(value, type) else [value]:
        one = one.fget if isinstance(one, property) else getattr(one, "__func__", one)
        one = inspect.unwrap(one) if callable(one) else one
        if isinstance(one, types.FunctionType) and one.__module__ == value.__module__:
            return one
    return None


def _source(value: Any, function: types.FunctionType) -> str | None:
    """Return the source of a class, or of a function, with its decorators; None where nobody has it."""
    code = function.__code__
    lines = linecache.getlines(code.co_filename, function.__globals__)
    kind = ast.ClassDef if isinstance(value, type) else ast.FunctionDef
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, kind) and node.name == value.__name__ and node.end_lineno is not None:
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            if first <= code.co_firstlineno <= node.end_lineno:
                return textwrap.dedent("".join(lines[first - 1 : node.end_lineno]))
    return None


def _names(table: symtable.SymbolTable) -> Iterator[str]:
    """Yield the names that a text takes from outside."""
    for symbol in table.get_symbols():
        if symbol.is_referenced() if table.get_type() == "module" else symbol.is_global():
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _names(inner)
