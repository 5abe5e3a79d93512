"""Who may import whom: the evaluation side starts without torch, only a few modules know Hydra."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "trainer"
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))
KNOWS_HYDRA = {"app", "launcher", "diagnose"}
NUMERICS = {"data", "model", "optim", "metrics"}
EVALUATION = {
    "overfit",
    "compare",
    "health",
    "evaluate",
    "report",
    "events",
    "curves",
    "stats",
    "groups",
    "fairness",
    "tidy",
    "foreign",
    "tags",
    "flatyaml",
    "tables",
    "wire",
    "files",
}


def imports_of(module: str) -> set[str]:
    """Top-level packages, and our own modules as 'trainer.<name>', that a module's source imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import; write 'from trainer import ...'"
            if node.module == "trainer":
                names = [f"trainer.{alias.name}" for alias in node.names]
            else:
                names = [node.module or ""]
        else:
            continue
        for name in names:
            parts = name.split(".")
            found.add(".".join(parts[:2]) if parts[0] == "trainer" else parts[0])
    return found


@pytest.mark.parametrize("module", MODULES)
def test_import_rules(module: str) -> None:
    imports = imports_of(module)
    ours = {name.removeprefix("trainer.") for name in imports if name.startswith("trainer.")}
    if module not in KNOWS_HYDRA | {"__main__"}:
        assert not imports & {"hydra", "omegaconf"}
    if module in NUMERICS:
        assert ours <= {"config", "problems"}
    if module in EVALUATION:
        assert "torch" not in imports
        assert ours <= EVALUATION
    if module != "__main__":
        assert "app" not in ours
    if not module.startswith("trace."):
        assert "trace" not in ours  # it shows what the others do, and they know nothing of it
