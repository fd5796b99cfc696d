"""What code a step runs, as one hash: a changed line anywhere in its import closure makes its old results stale."""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGES = ("model", "components")
CODE = frozenset({".py"})


@cache
def code_hash(module: str) -> str:
    """Hash (12 hex digits) of the sources of `module`, of all it imports from this project, and of their data files.

    Imports are found by reading the sources, those inside functions included, so nothing is executed.
    """
    digest = hashlib.sha256()
    for path in sorted(source_files(module)):
        digest.update(_relative_name(path).encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def source_files(module: str) -> set[Path]:
    """Every file of this project that `module` can reach: imported modules and the data files beside them."""
    files: set[Path] = set()
    waiting, seen = [module], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _module_file(name)
        if path is None:
            continue
        files.add(path)
        files.update(
            item for item in path.parent.iterdir() if item.is_file() and item.suffix not in CODE | {".pyc", ".md"}
        )
        waiting.extend(_project_imports(name, path))
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return files


def _project_imports(name: str, path: Path) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for imported in imported_names(path, package):
        if imported.partition(".")[0] in PACKAGES:
            yield imported


@cache
def imported_names(path: Path, package: str) -> tuple[str, ...]:
    """Dotted names that a source imports; `from a import b` gives `a` and `a.b`, since `b` may be a module."""
    return tuple(_walk_imports(path, package))


def _walk_imports(path: Path, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(filter(None, [*parents, node.module or ""]))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def _package_root(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _module_file(name: str) -> Path | None:
    top, *rest = name.split(".")
    root = _package_root(top) if top in PACKAGES else None
    if root is None:
        return None
    target = root.joinpath(*rest)
    for candidate in (target / "__init__.py", target.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


def _relative_name(path: Path) -> str:
    for package in PACKAGES:
        root = _package_root(package)
        if root and path.is_relative_to(root):
            return f"{package}/{path.relative_to(root)}"
    return path.name
