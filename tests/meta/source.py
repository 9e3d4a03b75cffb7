"""The project's source files and what they say, for the tests of this folder. It judges nothing."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DAEMON = ROOT / "daemon" / "tickcast"
PLUGINS = ROOT / "plugins" / "tickcast_plugins"
OURS = (DAEMON, PLUGINS)
CODE = (*OURS, ROOT / "tests", ROOT / "benchmarks")
NOT_OURS = {"__pycache__", "build", "dist", "out"}
TEXT = {".py", ".toml", ".md", ".txt", ".sql", ".sh", ".json", ".html", ".yml", ".yaml", ".service", ""}


def python_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def text_files() -> Iterator[Path]:
    """Everything a person wrote; caches, environments and outputs left out."""
    for top in sorted(ROOT.iterdir()):
        if top.name.startswith(".") and top.name not in (".ci", ".gitignore"):
            continue
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.suffix in TEXT and path.is_file() and not NOT_OURS.intersection(path.relative_to(ROOT).parts):
                yield path


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All of a file's syntax; conftest.py forgets it after each file of tests."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))))


def tree(path: Path) -> ast.Module:
    whole = nodes(path)[0]
    assert isinstance(whole, ast.Module)
    return whole


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_kernel(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a numba decorator compiles it."""
    return any("jit" in ast.unparse(decorator) for decorator in function.decorator_list)


def identifiers(node: ast.AST) -> set[str]:
    """Every name that the code below `node` reads, calls or imports."""
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            found.add(inner.id)
        elif isinstance(inner, ast.Attribute):
            found.add(inner.attr)
        elif isinstance(inner, ast.alias):
            found.update(inner.name.split("."))
        elif isinstance(inner, ast.ImportFrom) and inner.module:
            found.update(inner.module.split("."))
    return found
