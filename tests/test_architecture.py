"""Who may import whom: one table of floors, each importing only what stands below it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "trainer"
EVERYTHING = {"core", "engine", "record", "judge", "compare", "read", "report", "language", "config", "files", "text"}
EVERYTHING |= {"stdio"}
MAY_IMPORT = {  # floor (a folder of trainer/, or a module in it) -> floors it may import beside itself
    "__main__": {"cli", "stdio"},
    "api": {"evaluate", "report", "compare", "read", "engine", "core", "config", "files"},
    "cli": EVERYTHING,
    "engine": {"record", "judge", "core", "config", "files", "language", "text", "stdio"},
    "record": {"judge", "core", "config", "files", "text"},
    "core": {"config", "files"},
    "evaluate": {"report", "compare", "read", "judge", "language", "files", "text"},
    "cure": {"cli", "read", "report", "compare", "judge", "engine", "config", "files", "language", "text"},
    "versus": {"cli", "evaluate", "read", "report", "engine", "config", "files", "language", "text"},
    "report": {"compare", "read", "judge", "language", "files", "text"},
    "compare": {"judge", "files", "text"},
    "read": {"judge", "config", "files", "text"},
    "judge": set[str](),
    "language": {"text"},
    "trace": {"core", "config", "files", "language", "text", "stdio"},
    "config": set[str](),
    "files": set[str](),
    "text": set[str](),
    "stdio": set[str](),
    "__init__": {"api", "config"},
}
ENTRIES = {
    "trainer.__main__",
    "trainer.api.child",
    "trainer.trace.__main__",
}  # what a process begins with: may import cli
KNOW_HYDRA = {"cli"}
WITHOUT_TORCH = {"judge", "compare", "read", "report", "evaluate", "config", "files", "text", "stdio"}


def modules(folder: Path = PACKAGE) -> dict[str, ast.Module]:
    """Dotted name -> syntax tree of every module of the package."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(folder.rglob("*.py"))}
    return {name.removesuffix(".__init__"): ast.parse(path.read_text("utf-8")) for name, path in paths.items()}


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """The dotted names that a module imports anywhere, also inside functions and for types only."""
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import; write 'from trainer import ...'"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


def floor(name: str) -> str:
    """The floor a module stands on: trainer.core.loop -> core."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_stands_below_it(name: str) -> None:
    found = set(imports(name))
    allowed = MAY_IMPORT[floor(name)] | {floor(name)} | ({"cli"} if name in ENTRIES else set())
    assert {floor(other) for other in found if other.split(".")[0] == "trainer"} <= allowed
    others = {other.split(".")[0] for other in found}
    if floor(name) not in KNOW_HYDRA:
        assert not others & {"hydra", "omegaconf"}
    if floor(name) in WITHOUT_TORCH:
        assert "torch" not in others


def test_no_module_imports_itself_by_way_of_others() -> None:
    above: list[str] = []
    done: set[str] = set()

    def visit(name: str) -> None:
        assert name not in above, f"a circle: {' -> '.join([*above[above.index(name) :], name])}"
        if name in done:
            return
        above.append(name)
        for other in imports(name):
            if other in MODULES:
                visit(other)
        done.add(above.pop())

    for name in MODULES:
        visit(name)


def test_every_floor_is_in_the_table_and_says_what_it_is_for() -> None:
    floors = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert floors == set(MAY_IMPORT)
    for name in floors - {"__main__"}:
        module = "trainer" if name == "__init__" else f"trainer.{name}"
        assert ast.get_docstring(MODULES[module]), f"{name}: no docstring"


def test_no_test_imports_another() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
                names = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
                assert not any(".test_" in name for name in names), path
