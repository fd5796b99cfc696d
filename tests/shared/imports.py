"""Third-party imports of a step or a command, which images and registered models must contain."""

from model.code_hash import PACKAGES, imported_names, source_files


def third_party(module: str) -> set[str]:
    """Returns the top-level third-party packages that a module and its imports from this project import."""
    sources = (path for path in source_files(module) if path.suffix == ".py")
    names = {name.partition(".")[0] for path in sources for name in imported_names(path, package="")}
    return {name for name in names if name and name not in PACKAGES}
