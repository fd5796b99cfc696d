"""A new champion is announced once, to a command or a webhook; what the receiver does changes nothing else."""

import json
import logging
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from components import announcement
from components.announcement import announce
from components.registry import CHAMPION, Registry
from model.config.resolution import ConfigError, resolve

NAME = "m"


class Receiver:
    """A webhook on this machine.

    Attributes:
        answers: Statuses of the next answers; afterwards 204.
        requests: (headers, content) of every request.
    """

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.requests: list[tuple[dict[str, str], dict]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.requests.append((dict(self.headers), content))
                body = b"the version is on the list of forbidden ones"
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.send_header("Content-Length", str(len(body) if receiver.answers else 0))
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                if receiver.answers:
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture
def registry(state, monkeypatch) -> Registry:
    """Three versions, of which the first is champion."""
    monkeypatch.setenv("MYXTTS_GIT_SHA", "abc")
    monkeypatch.delenv(announcement.TOKEN, raising=False)
    found = Registry(state)
    found.client.create_registered_model(NAME)
    for number in range(3):
        found.client.create_model_version(NAME, f"file:///nowhere/{number}")
    found.promote(NAME, "1", "", "first", evidence={"decision": "runs:/7/gate/0a1b"})
    return found


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Seconds between attempts, which pass on a clock of their own."""
    passed: list[float] = []
    monkeypatch.setattr(announcement, "RETRY_SECONDS", 12.0)
    original = announcement.retry_during_outage

    def retry(action, is_outage, what, seconds, sleep):
        return original(action, is_outage, what, seconds, sleep, clock=lambda: sum(passed))

    monkeypatch.setattr(announcement, "retry_during_outage", retry)
    return passed


def announced(registry: Registry, hook: str, pauses: list[float]) -> str:
    """Announces the champion, with pauses that pass on the test's clock, and returns the result."""
    return announce(registry, NAME, hook, pauses.append)


def test_a_webhook_receives_who_made_which_version_champion_and_why(registry, receiver, pauses, monkeypatch):
    monkeypatch.setenv(announcement.TOKEN, "s3cret")
    assert announced(registry, receiver.url, pauses) == "delivered"
    [(headers, content)] = receiver.requests
    operation = registry.history(NAME)[0].operation
    assert content == {
        "id": operation.id,
        "event": "promote",
        "model": NAME,
        "version": "1",
        "uri": "models:/m/1",
        "replaced": "",
        "time": operation.time,
        "author": {"user": operation.author.user, "host": operation.author.host, "identity": "", "commit": "abc"},
        "reason": "first",
        "forced": False,
        "evidence": {"decision": "runs:/7/gate/0a1b"},
    }
    assert headers["Idempotency-Key"] == operation.id
    assert headers["Authorization"] == "Bearer s3cret"
    assert registry.history(NAME)[0].announcement == "delivered"


def test_a_change_is_announced_once_and_a_rollback_too(registry, receiver, pauses):
    for _ in range(2):
        announced(registry, receiver.url, pauses)
    registry.promote(NAME, "2", "1", "better")
    registry.make_candidate(NAME, "3", {})
    announced(registry, receiver.url, pauses)
    registry.rollback(NAME, "clicks")
    announced(registry, receiver.url, pauses)
    assert [(content["event"], content["version"]) for _, content in receiver.requests] == [
        ("promote", "1"),
        ("promote", "2"),
        ("rollback", "1"),
    ]


def test_of_two_processes_one_announces(registry, receiver, pauses):
    assert registry.journal(NAME).claim_announcement(1, "the other process")
    assert registry.history(NAME)[0].announcement == "begun"
    assert announced(registry, receiver.url, pauses) == ""
    assert receiver.requests == []


def test_a_process_that_reads_before_another_announces_announces_nothing(registry, receiver, pauses, monkeypatch):
    history = registry.history

    def announced_meanwhile(name):
        found = history(name)
        monkeypatch.setattr(registry, "history", history)
        assert announced(registry, receiver.url, pauses) == "delivered"
        return found

    monkeypatch.setattr(registry, "history", announced_meanwhile)
    assert announced(registry, receiver.url, pauses) == ""
    assert len(receiver.requests) == 1


def test_without_a_setting_nothing_is_announced(registry, pauses):
    assert announced(registry, "", pauses) == ""
    assert registry.history(NAME)[0].announcement == ""


def test_a_receiver_that_is_busy_is_asked_again(registry, receiver, pauses):
    receiver.answers = [503, 429]
    assert announced(registry, receiver.url, pauses) == "delivered"
    assert len(pauses) == 2
    assert len({headers["Idempotency-Key"] for headers, _ in receiver.requests}) == 1


@pytest.mark.parametrize(("status", "attempts"), [(403, 1), (302, 1), (500, 3)])
def test_a_failure_is_reported_and_recorded_and_the_promotion_stands(
    registry, receiver, pauses, caplog, status, attempts
):
    receiver.answers = [status] * 9
    with caplog.at_level(logging.WARNING):
        result = announced(registry, receiver.url, pauses)
    assert result.startswith(f"failed: {receiver.url} answered {status}")
    assert len(receiver.requests) == attempts
    assert result in caplog.text
    assert "version 1 stays champion" in caplog.text
    assert registry.aliases(NAME)[CHAMPION] == "1"
    assert registry.history(NAME)[0].announcement == result


def test_an_address_where_nobody_listens_is_a_failure(registry, receiver, pauses):
    receiver.stop()
    assert announced(registry, receiver.url, pauses) == f"failed: {receiver.url} does not answer (ConnectionError)"


def test_a_command_gets_the_announcement_on_its_standard_input(registry, tmp_path, pauses):
    script = tmp_path / "hook.py"
    script.write_text("import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())")
    assert announced(registry, f"{sys.executable} {script} '{tmp_path}/two words.json'", pauses) == "delivered"
    assert json.loads((tmp_path / "two words.json").read_text())["uri"] == "models:/m/1"


@pytest.mark.parametrize(
    ("command", "reason", "attempts"),
    [
        (f"{sys.executable} -c \"import sys; sys.exit('no disk')\"", "exited with 1: no disk", 3),
        ("/nowhere/program", "cannot be run: ", 1),
    ],
)
def test_a_command_that_fails_is_reported(registry, pauses, command, reason, attempts):
    result = announced(registry, command, pauses)
    assert result.startswith("failed: ")
    assert reason in result
    assert len(pauses) == attempts - 1


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        ("https://anna:secret@example.com/hook", "MYXTTS_ON_PROMOTE_TOKEN"),
        ("https://example.com/hook?token=secret", "MYXTTS_ON_PROMOTE_TOKEN"),
        ("ftp://example.com/hook", "is no address of a webhook"),
        ("https:///hook", "is no address of a webhook"),
        ("deploy 'voice", "is no command"),
    ],
)
def test_addresses_with_credentials_and_what_is_neither_address_nor_command_are_refused(hook, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        resolve(None, None, {"registry.on_promote": hook})
    assert "secret" not in str(caught.value)


def test_addresses_and_commands_are_accepted():
    for hook in ("https://example.com/hook", "http://127.0.0.1:8000", "kubectl rollout restart deployment/voice", ""):
        assert resolve(None, None, {"registry.on_promote": hook}).config.registry.on_promote == hook
