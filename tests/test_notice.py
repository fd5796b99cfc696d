"""LICENSE and NOTICE: the license that pyproject.toml names, and every package whose license is not permissive."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NOTICE = (ROOT / "NOTICE").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
COPYLEFT = re.compile(r"GPL|MPL|EPL|Mozilla|Eclipse|Affero|European Union", re.IGNORECASE)
UNSTATED = {"espeakng-loader"}
"""Packages whose metadata do not state the license of bundled files."""


def extra(name: str) -> list[str]:
    return PROJECT["optional-dependencies"][name]


def license_of(name: str) -> str:
    """Returns the license in the metadata of an installed distribution."""
    metadata = importlib.metadata.metadata(name)
    stated = [metadata.get("License-Expression"), (metadata.get("License") or "").partition("\n")[0]]
    stated += [line for line in metadata.get_all("Classifier") or [] if line.startswith("License")]
    return "; ".join(filter(None, stated))


@pytest.fixture(scope="module")
def distributions() -> set[str]:
    """The distributions that the project installs here, its development tools left out."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in (*PROJECT["dependencies"], *extra("all"))]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name == PROJECT["name"]:
            waiting += [Requirement(line) for part in requirement.extras for line in extra(part)]
        elif name not in found:
            found.add(name)
            requires = importlib.metadata.requires(name) or []
            needed = (Requirement(line) for line in requires)
            names = requirement.extras or {""}
            waiting += [
                item
                for item in needed
                if not item.marker or any(item.marker.evaluate({"extra": part}) for part in names)
            ]
    return found


def test_the_license_is_the_one_that_the_metadata_name():
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert text.rstrip().endswith("limitations under the License.")
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE"]


def test_the_notice_names_every_package_with_a_copyleft_license(distributions):
    copyleft = {name for name in distributions if COPYLEFT.search(license_of(name))}
    assert {"soxr", "num2words", "pygit2"} <= copyleft
    unnamed = {name for name in copyleft | UNSTATED if not re.search(rf"\b{re.escape(name)}\b", NOTICE)}
    assert not unnamed


def test_the_notice_names_every_copyleft_library_that_wheels_bundle():
    """`auditwheel` puts bundled libraries into `<distribution>.libs`."""
    known = {"libx264": "libx264", "libx265": "libx265", "libgfortran": "libgfortran", "libgomp": "libgomp",
             "libquadmath": "libquadmath", "libmp3lame": "libmp3lame", "libgnutls": "gnutls", "libgmp": "gmp",
             "libnettle": "nettle", "libhogweed": "nettle", "libunistring": "libunistring", "libavcodec": "FFmpeg",
             "libgit2": "libgit2"}  # fmt: skip
    site = Path(importlib.metadata.distribution("av").locate_file(""))
    bundled = {path.name.partition(".")[0].partition("-")[0] for path in site.glob("*.libs/*.so*")}
    assert {"libx264", "libgfortran"} <= bundled
    assert not {library for library in bundled & known.keys() if known[library] not in NOTICE}
