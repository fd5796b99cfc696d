"""Hash of the code that a pipeline step or a data stage runs.

The cache key of a step includes the hash of every module of this project that the step can import, so that a changed
statement invalidates earlier results. Comments, docstrings and formatting do not change the hash.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGES = ("model", "components")
NOT_DATA = (".py", ".pyc", ".md")


@cache
def code_hash(*modules: str, exclude: tuple[str, ...] = ()) -> str:
    """Returns a hash (16 hex digits) of modules, of everything they import from this project, and of their data files.

    Args:
        *modules: Dotted names.
        exclude: Packages to leave out, such as `model.config` where settings are tracked separately.
    """
    digest = hashlib.sha256()
    for path in sorted(source_files(*modules, exclude=exclude)):
        content = path.read_bytes()
        own = _statements_sha256(content) if path.suffix == ".py" else hashlib.sha256(content).hexdigest()
        digest.update(f"{relative_name(path)} {own}\n".encode())
    return digest.hexdigest()[:16]


def source_files(*modules: str, exclude: tuple[str, ...] = ()) -> set[Path]:
    """Returns the files of this project that modules can reach: imported modules and the data files that they read.

    Imports are found by parsing the sources, including functions, without executing them. A data file belongs to every
    module of its folder; a page (`.html`) only to the module of the same name.
    """
    files: set[Path] = set()
    pending, seen = list(modules), set()
    while pending:
        name = pending.pop()
        path = _module_file(name)
        if name in seen or path is None or name.startswith(exclude):
            continue
        seen.add(name)
        files.add(path)
        files.update(_data_files(path))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        pending += [imported for imported in imported_names(path, package) if imported.startswith(PACKAGES)]
        if "." in name:
            pending.append(name.rpartition(".")[0])
    return files


@cache
def imported_names(path: Path, package: str) -> tuple[str, ...]:
    """Returns the dotted names that a source imports; `from a import b` gives `a` and `a.b`, since `b` may be a module.

    Args:
        path: A Python source.
        package: The package that contains it, for relative imports.
    """
    return tuple(_imports(ast.parse(path.read_bytes(), filename=str(path)), package))


def relative_name(path: Path) -> str:
    """Returns a path of this project as `model/...` or `components/...`."""
    for package in PACKAGES:
        root = _package_root(package)
        if root and path.is_relative_to(root):
            return f"{package}/{path.relative_to(root).as_posix()}"
    return path.name


@cache  # steps share most of their sources
def _statements_sha256(source: bytes) -> str:
    """Returns the SHA-256 of the statements of a source, without comments, docstrings and formatting."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [item for item in body if not _is_text(item)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _data_files(module: Path) -> Iterator[Path]:
    for item in module.parent.iterdir():
        belongs = item.stem == module.stem if item.suffix == ".html" else item.suffix not in NOT_DATA
        if item.is_file() and belongs:
            yield item


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(filter(None, [*parents, base]))
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
    return next((path for path in (target / "__init__.py", target.with_suffix(".py")) if path.is_file()), None)
