"""What the code behind a step or a command needs from elsewhere: images and registered models must hold it."""

from model.code_hash import PACKAGES, imported_names, source_files


def third_party(module: str) -> set[str]:
    """Top-level names that `module`, and all it imports from this project, import from outside."""
    sources = (path for path in source_files(module) if path.suffix == ".py")
    names = {name.partition(".")[0] for path in sources for name in imported_names(path, package="")}
    return {name for name in names if name and name not in PACKAGES}
