"""A server for the part of a Docker engine's API that names images; other requests are refused."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

import http_double

VERSION = {"ApiVersion": "1.47", "MinAPIVersion": "1.24", "Version": "27.0", "Os": "linux", "Arch": "amd64"}
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass
class DockerDouble:
    """Images of one engine.

    Attributes:
        images: `name:tag` -> id (`sha256:` and 64 hex digits).
        labels: Id -> labels.
    """

    images: dict[str, str] = field(default_factory=dict)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)

    def build(self, name: str, content: str, commit: str) -> None:
        """Adds an image with this name; its content is one hex digit."""
        self.images[name] = f"sha256:{content * 64}"
        self.labels[self.images[name]] = {"org.opencontainers.image.revision": commit}

    def answer(self, method: str, path: str, query: dict[str, str], _body: object) -> tuple[int, object]:
        path = re.sub(r"^/v[\d.]+", "", unquote(path))
        if (method, path) == ("GET", "/version"):
            return 200, VERSION
        if (method, path) == ("GET", "/_ping"):
            return 200, "OK"
        if method == "GET" and (found := re.fullmatch(r"/images/(.+)/json", path)):
            known = self.images.get(found[1], found[1])
            if known not in self.labels:
                return 404, {"message": f"No such image: {found[1]}"}
            return 200, {"Id": known, "Config": {"Labels": self.labels[known]}, "RepoTags": []}
        if method == "POST" and (found := re.fullmatch(r"/images/(.+)/tag", path)):
            if found[1] not in self.labels or not TAG.fullmatch(query.get("tag", "")):
                return 400, {"message": "invalid reference format"}
            self.images[f"{query['repo']}:{query['tag']}"] = found[1]
            return 201, ""
        return 501, {"message": f"the double does not implement {method} {path}"}

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serves on a port of this machine; yields the value of DOCKER_HOST."""
        with http_double.serving(self.answer) as port:
            yield f"tcp://127.0.0.1:{port}"
