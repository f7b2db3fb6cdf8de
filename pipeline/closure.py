"""The code that a module runs: its static import closure inside this repository.

`dvc.yaml` lists it as a stage's dependencies, and saved states are keyed by it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tinygrow", "pipeline")
COMPILED = (".pyc", ".pyo")


def import_closure(start: Path, root: Path = ROOT) -> set[Path]:
    """Return `start`, all modules it imports directly or not, and their packages' data files.

    Args:
        start: a module, relative to `root`.
        root: holds the packages.

    Returns:
        Paths relative to `root`. Imports inside functions count; those for type checkers do not,
        nor do `__init__.py` files that hold a docstring alone.
    """
    found: set[Path] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found.add(module)
        waiting += _parents(module, root)
        waiting += _imports(module, root)
    folders = {root / module.parent for module in found}
    data = {
        file.relative_to(root)
        for folder in folders
        for file in folder.iterdir()
        if file.is_file() and file.suffix not in (".py", *COMPILED)
    }
    return {file for file in found | data if not runs_nothing(root / file)}


def _imports(module: Path, root: Path) -> Iterator[Path]:
    for node in _executed(ast.parse((root / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(alias.name, root)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; the house imports absolutely"
            yield from _module(node.module or "", root)
            for alias in node.names:
                yield from _module(f"{node.module}.{alias.name}", root)


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _executed(node)


def _module(name: str, root: Path) -> Iterator[Path]:
    if name.split(".")[0] not in PACKAGES:
        return
    path = Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (root / candidate).is_file():
            yield candidate


def runs_nothing(file: Path) -> bool:
    """Say whether `file` marks a package and does no more."""
    if file.name != "__init__.py" or not file.is_file():
        return False
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return all(isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) for s in body)


def _parents(module: Path, root: Path) -> Iterator[Path]:
    for parent in module.parents:
        if (root / parent / "__init__.py").is_file():
            yield parent / "__init__.py"
