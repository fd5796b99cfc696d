"""Listening tests of registered versions: the check of the gate, the server of the page, and recorded results."""

import json
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

from components.gate.listening import LISTENING, listening_check
from components.listening import ListeningTest, listening_server
from components.registry import Registry
from components.state import write_json
from model.audio.io import write_audio
from model.config import settings_hash
from model.config.evaluation import RegistryConfig
from model.evaluation.listening import ListeningError

NAME = "m"
CONFIG = RegistryConfig(require_listening=2)


def tag(**changes):
    found = {"against": "1", "listeners": 3, "answers": 30, "preferred": 0.5, "low": 0.4, "high": 0.6}
    return json.dumps({**found, **changes})


@pytest.mark.parametrize(
    ("value", "settings", "result", "reason"),
    [
        ("", {}, "fail", "nobody has listened yet"),
        (tag(), {}, "pass", "preferred in 50%"),
        (tag(low=0.3), {}, "fail", "must be at least 35%"),
        (tag(low=0.3), {"listening_margin": 0.25}, "pass", "must be at least 25%"),
        (tag(against="2"), {}, "fail", "was against version 2, the champion is 1"),
        (tag(listeners=1), {}, "fail", "registry.require_listening asks for 2"),
    ],
)
def test_the_gate_asks_for_enough_listeners_who_do_not_prefer_the_champion(value, settings, result, reason):
    check = listening_check(value, "1", RegistryConfig(require_listening=2, **settings))
    assert (check.name, check.result) == ("listening test", result)
    assert reason in check.reason


@pytest.fixture
def registry(state):
    registry = Registry(state)
    registry.client.create_registered_model(NAME)
    for number in (1, 2):
        registry.client.create_model_version(NAME, f"file:///{number}")
    return registry


def judged(state, tmp_path, champion="1"):
    """Writes the report and the evaluations of the gate for version 2."""
    examined = {}
    for name, pitch in (("candidate", 0.2), ("champion", 0.3)):
        folder = tmp_path / name
        examined[name] = str(folder)
        audio = {kind: f"{kind}.flac" for kind in ("recording", "synthesised")}
        for file in audio.values():
            write_audio(folder / file, (0.1 * np.sin(np.arange(500) * pitch)).astype(np.float32), 22050)
        clip = {"id": "c", "sentence": "1", "text": "Hello.", "language": "en", "part": "unseen", "audio": audio}
        write_json(folder / "metrics.json", {"clips": [clip]})
    path = state.gate(settings_hash({"name": NAME, "version": "2"})) / "gate.json"
    write_json(path, {"champion_before": champion, "examined": examined})


@pytest.fixture
def test(state, registry, tmp_path):
    judged(state, tmp_path)
    return ListeningTest(registry, registry.version(NAME, "2"))


def answers(test, listener, prefers="candidate"):
    tokens = {name: token for token, name in test.key["key"].items()}
    pair = [tokens["candidate"], tokens["champion"]]
    scores = {token: 100 if name == "recording" else 50 for name, token in tokens.items()}
    given = [
        {"kind": "preference", "sounds": pair, "choice": tokens[prefers]},
        {"kind": "quality", "sounds": list(scores), "scores": scores},
    ]
    return {"format": 1, "test": test.key["test"], "listener": listener, "answers": given}


def test_what_listeners_prefer_is_recorded_on_the_version(test, registry):
    test.add(answers(test, "ann"))
    assert test.record(CONFIG).result == "fail"  # one listener of two
    test.add(answers(test, "bob"))
    check = test.record(CONFIG)
    assert check.result == "pass"
    tags = registry.version(NAME, "2").tags
    assert json.loads(tags[LISTENING]) == {
        "against": "1",
        "listeners": 2,
        "answers": 2,
        "preferred": 1.0,
        "low": 1.0,
        "high": 1.0,
        "test": test.key["test"],
    }
    assert json.loads(tags["gate"])["listening test"].startswith("pass: preferred in 100% of 2 answers")
    test.add(answers(test, "bob", prefers="champion"))  # in place of his earlier answers
    assert test.record(CONFIG).result == "fail"
    assert test.summary().listeners == 2


def test_a_test_is_made_once(test, registry):
    written = test.page.stat().st_mtime_ns
    again = ListeningTest(registry, registry.version(NAME, "2"))
    assert again.key == test.key
    assert again.page.stat().st_mtime_ns == written


def test_without_listeners_there_is_nothing_to_record(test):
    with pytest.raises(ListeningError, match="nobody has listened yet"):
        test.record(CONFIG)


@pytest.mark.parametrize("champion", ["", "2"])
def test_a_version_without_another_champion_has_no_test(state, registry, tmp_path, champion):
    with pytest.raises(ListeningError, match="its gate did not run here"):
        ListeningTest(registry, registry.version(NAME, "2"))
    judged(state, tmp_path, champion)
    with pytest.raises(ListeningError, match="no other champion"):
        ListeningTest(registry, registry.version(NAME, "2"))


def test_the_server_shows_the_page_and_stores_answers_that_fit(test):
    server = listening_server(test, CONFIG)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/"

    def send(content):
        urllib.request.urlopen(urllib.request.Request(f"{address}results", content, method="POST"), timeout=60).close()

    try:
        with urllib.request.urlopen(address, timeout=60) as page:
            assert page.read() == test.page.read_bytes()
        send(json.dumps(answers(test, "ann")).encode())
        for content in (b"{", json.dumps({**answers(test, "eve"), "test": "another"}).encode()):
            with pytest.raises(urllib.error.HTTPError, match="400"):
                send(content)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}test.html.key.json", timeout=60)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert test.summary().listeners == 1
