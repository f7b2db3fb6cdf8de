"""The code that a module runs: its static import closure inside this repository.

`dvc.yaml` lists it as a stage's dependencies, and saved states are keyed by it.
"""

import ast
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tinygrow", "pipeline")
COMPILED = (".pyc", ".pyo")


def import_closure(
    start: Path, root: Path = ROOT, packages: Collection[str] = PACKAGES
) -> set[Path]:
    """Return `start`, all modules it imports directly or not, and their packages' data files.

    Args:
        start: a module, relative to `root`.
        root: holds the packages.
        packages: to follow imports into.

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
        waiting += _imports(module, root, packages)
    folders = {root / module.parent for module in found}
    data = {
        file.relative_to(root)
        for folder in folders
        for file in folder.iterdir()
        if file.is_file() and file.suffix not in (".py", *COMPILED)
    }
    return {file for file in found | data if not runs_nothing(root / file)}


def network_code(module: str) -> dict[str, Path]:
    """Return the files of a user's network, `package.module`, by names that hold anywhere.

    Those are its import closure inside its own package, in the folder of the pipeline or beside
    this code; elsewhere, such as in an installed package, the module's file alone.
    """
    package = module.split(".")[0]
    for root in dict.fromkeys((Path.cwd(), ROOT)):
        for start in _module(module, root, (package,)):
            return {str(p): root / p for p in import_closure(start, root, (package,))}
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # no such package: growth says so when it needs it
        return {}
    return {} if spec is None or spec.origin is None else {module: Path(spec.origin)}


def _imports(module: Path, root: Path, packages: Collection[str]) -> Iterator[Path]:
    for node in _executed(ast.parse((root / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(alias.name, root, packages)
        elif isinstance(node, ast.ImportFrom):
            above = module.parts[: -node.level] if node.level else ()
            name = ".".join((*above, *([node.module] if node.module else [])))
            yield from _module(name, root, packages)
            for alias in node.names:
                yield from _module(f"{name}.{alias.name}", root, packages)


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _executed(node)


def _module(name: str, root: Path, packages: Collection[str]) -> Iterator[Path]:
    if name.split(".")[0] not in packages:
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
