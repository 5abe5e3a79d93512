"""Code of the user's own: where a module lies and what it imports, found out without running any of it."""

from __future__ import annotations

import ast
import functools
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

_INSTALLED = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}


def find(module: str) -> ModuleSpec | None:
    """Return where Python would import a dotted name from; None where it would not find it."""
    spec, name, path = None, "", None
    for part in module.split("."):
        if not part.isidentifier():
            return None
        name = f"{name}.{part}".lstrip(".")
        try:
            specs = (finder.find_spec(name, path) for finder in sys.meta_path)
            spec = next((found for found in specs if found is not None), None)
        except KeyError:  # a folder without __init__.py in another: Python wants that one imported
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [f"{place}/{part}" for place in path or () if Path(place, part).is_dir()]
            spec = spec if spec.submodule_search_locations else None
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and name != module:  # a module that holds no others
            return None
    return spec


def is_own(spec: ModuleSpec | None, *folders: Path) -> bool:
    """Whether a module lies in the current folder (or in one of these), and is not installed there."""
    if spec is None or not (places := _places(spec)):
        return False
    return all(
        any(place.is_relative_to(folder.resolve()) for folder in (Path.cwd(), *folders))
        and not any(place.is_relative_to(installed) for installed in _INSTALLED)
        and not {"site-packages", "dist-packages"} & set(place.parts)
        for place in places
    )


def lies_in(spec: ModuleSpec | None, folder: Path) -> bool:
    """Whether a module, or a part of it, lies in a folder."""
    return spec is not None and any(place.is_relative_to(folder.resolve()) for place in _places(spec))


def is_standard(module: str) -> bool:
    """Whether a dotted name is of Python's standard library; a file of that name in the current folder is not."""
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names and not is_own(find(top))


def takes(path: str, name: str) -> bool:
    """Whether a class or function, by a dotted path, has a parameter; also where its source alone does not tell."""
    module, _, target = path.rpartition(".")
    spec = find(module) if module else None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return True
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (SyntaxError, ValueError):  # training will say so
        return True
    found = _definition(tree, target)
    if isinstance(found, ast.ClassDef):
        found = _definition(found, "__init__")
    if not isinstance(found, ast.FunctionDef) or found.args.kwarg or found.decorator_list:
        return True
    return name in {one.arg for one in (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs)}


def _definition(tree: ast.Module | ast.ClassDef, name: str) -> ast.stmt | None:
    return next((node for node in tree.body if getattr(node, "name", None) == name), None)


def is_network_of_torchvision(path: str) -> bool:
    """Whether a dotted path names a function of torchvision's that builds a network, and does nothing else."""
    package, _, name = path.rpartition(".")
    if package != "torchvision.models":
        return False
    from torchvision import models

    return name in models.list_models()


def sources(module: str) -> dict[str, Path]:
    """Return the file of a module, and those of all modules of the user's own that it imports, by their names.

    They are read, not run: an import by a name that is computed is not seen.
    """
    found: dict[str, Path] = {}
    spec = find(module)
    if spec is None:
        return found
    folders = [place.parent for place in _places(spec)]
    left = [module]
    while left:
        name = left.pop()
        spec = find(name)
        is_wanted = name == module or is_own(spec, *folders)
        if name in found or spec is None or not is_wanted:
            continue
        if spec.origin is not None and Path(spec.origin).is_file():
            found[name] = Path(spec.origin)
            if is_own(spec, *folders):
                package = name if spec.submodule_search_locations else name.rpartition(".")[0]
                left += _imports(found[name].read_bytes(), package)
        if "." in name:
            left.append(name.rpartition(".")[0])  # whose __init__.py runs first
    return dict(sorted(found.items()))


@functools.cache
def _imports(source: bytes, package: str) -> tuple[str, ...]:
    """Return the dotted names that a module of this package may import, anywhere in it."""
    try:
        return tuple(dict.fromkeys(_imported(ast.parse(source), package)))
    except (SyntaxError, ValueError):  # training will say so
        return ()


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _places(spec: ModuleSpec) -> list[Path]:
    """Return the files or folders a module is made of; none for what is built in."""
    if spec.has_location and spec.origin is not None:
        return [Path(spec.origin).resolve()]
    return [Path(place).resolve() for place in spec.submodule_search_locations or ()]
