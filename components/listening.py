"""Listening tests of registered versions: made from the gate's evaluations, served on this machine, and recorded."""

import json
import logging
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from components.gate.checks import Check
from components.gate.listening import LISTENING, listening_check
from components.registry import GATE, Registry, Version
from components.state import State, read_json
from model.config import settings_hash
from model.config.evaluation import RegistryConfig
from model.evaluation.listening import ListeningError, Summary, check_results, key_of, summarize, write_test
from model.files import write_json

CANDIDATE, CHAMPION = "candidate", "champion"
MAX_BYTES = 10_000_000
"""Largest results that the server takes."""

logger = logging.getLogger(__name__)


class ListeningTest:
    """The listening test of a version against the champion that its gate compared it with.

    Args:
        registry: Registry of the version.
        version: The candidate.

    Raises:
        ListeningError: the gate of this version did not run in this state folder, or had no champion to compare with.
    """

    def __init__(self, registry: Registry, version: Version) -> None:
        self.registry, self.version = registry, version
        state = registry.state
        path = state.gate(settings_hash({"name": version.name, "version": version.number})) / "gate.json"
        label = f"{version.name} version {version.number}"
        if not path.is_file():
            raise ListeningError(
                f"{label}: its gate did not run here ({path} is missing); run the pipeline here, or make a test of any "
                "two voices with `myxtts evaluate --listening-test page.html --against <voice>`"
            )
        report = read_json(path)
        self.against: str = report["champion_before"]
        if self.against in ("", version.number):
            raise ListeningError(f"{label}: there was no other champion to compare with")
        self.folder = state.folder("listening", f"{version.name}-v{version.number}-v{self.against}")
        self.page = self.folder / "test.html"
        if not key_of(self.page).is_file():
            folders = {name: Path(report["examined"][name]) for name in (CANDIDATE, CHAMPION)}
            write_test(self.page, "Listening test", folders)
        self.key: dict[str, Any] = read_json(key_of(self.page))

    def add(self, results: Any) -> Path:
        """Stores the results of a listener in place of earlier ones.

        Raises:
            ListeningError: they are of another test, or malformed.
        """
        listener = check_results(results, self.key)["listener"]
        name = settings_hash({"listener": listener})
        return write_json(self.folder / "results" / f"{name}.json", results)

    def summary(self) -> Summary:
        """Returns the analysis of all stored results.

        Raises:
            ListeningError: there are none.
        """
        found = [read_json(path) for path in sorted((self.folder / "results").glob("*.json"))]
        if not found:
            raise ListeningError(f"{self.folder}: nobody has listened yet; `myxtts registry listen` opens the test")
        return summarize(found, self.key)

    def record(self, config: RegistryConfig) -> Check:
        """Writes the summary, and whether it suffices, on the version in MLflow; returns the gate's check."""
        summary = self.summary()
        preferred = summary.preferred[CANDIDATE, CHAMPION]
        value = {
            "against": self.against,
            "listeners": summary.listeners,
            "answers": summary.preferences,
            "preferred": round(preferred.mean, 4),
            "low": round(preferred.low, 4) if preferred.count > 1 else 0.0,
            "high": round(preferred.high, 4) if preferred.count > 1 else 1.0,
            "test": self.key["test"],
        }
        text = json.dumps(value)
        check = listening_check(text, self.against, config)
        checks = self.registry.version(self.version.name, self.version.number).checks
        tags = {LISTENING: text, GATE: json.dumps({**checks, check.name: str(check)})}
        for key, content in tags.items():
            self.registry.client.set_model_version_tag(self.version.name, self.version.number, key, content)
        return check


def listening_server(test: ListeningTest, config: RegistryConfig, port: int = 0) -> ThreadingHTTPServer:
    """Returns a server of the page of a test, for this machine only, which stores the answers of listeners.

    Args:
        test: The test.
        config: Requirements of a promotion.
        port: 0 for any free one.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/":
                self._answer(404, "text/plain", b"nothing here")
                return
            self._answer(200, "text/html; charset=utf-8", test.page.read_bytes())

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if self.path != "/results" or not 0 < length <= MAX_BYTES:
                self._answer(404, "text/plain", b"nothing here")
                return
            try:
                test.add(json.loads(self.rfile.read(length)))
                check = test.record(config)
            except (ValueError, ListeningError) as error:
                self._answer(400, "text/plain; charset=utf-8", str(error).encode())
                return
            logger.info("results stored; %s: %s", check.result, check.reason)
            self._answer(200, "text/plain", b"stored")

        def _answer(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            logger.debug(format, *arguments)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def open_test(state: State, name: str, version: str) -> ListeningTest:
    """Returns the listening test of a version, by number or alias."""
    registry = Registry(state)
    return ListeningTest(registry, registry.version(name, version))
