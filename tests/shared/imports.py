"""What the code behind a step or a command needs from elsewhere: images and registered models must hold it."""

from components.source import CODE, PACKAGES, imported_names, source_files


def third_party(module: str) -> set[str]:
    """Top-level names that `module`, and all it imports from this project, import from outside."""
    sources = (path for path in source_files(module) if path.suffix in CODE)
    names = {name.partition(".")[0] for path in sources for name in imported_names(path, package="")}
    return {name for name in names if name and name not in PACKAGES}
