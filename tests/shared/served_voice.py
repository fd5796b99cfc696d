"""A registered toy voice, and what a server of it must answer."""

import base64
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
import soundfile
from evaluated_voice import evaluated_voice

from components.register.run import run as register
from components.registry import Registry
from components.state import State

NAME = "myxtts-toy-xtiny"
METRICS = {"mel_cepstral_distortion": 6.25, "character_error_increase": 0.125, "alignment_monotonicity": 0.96875}
SECONDS = 300.0


def register_champion(state: State, voice: Path, folder: Path) -> None:
    """Registers a voice and makes it the champion."""
    register(**evaluated_voice(state, voice, folder, METRICS), name=NAME)
    Registry(state).promote(NAME, "1", "", "first")


def wait_for(address: str, log_of_end: Callable[[], str | None]) -> None:
    """Waits until a server answers.

    Args:
        address: Its `/ping`.
        log_of_end: Returns the server's log if it has ended, else None.
    """
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            if requests.get(address, timeout=60).ok:
                return
        except requests.ConnectionError:
            pass
        ended = log_of_end()
        assert ended is None, ended
        assert time.monotonic() < deadline
        time.sleep(0.5)


def check_answers(address: str) -> None:
    """Asserts that a server speaks, and answers bad requests with status 400 and the reason."""
    rows = [{"text": "Good morning.", "language": "en"}]
    answer = requests.post(address, json={"dataframe_records": rows, "params": {"speed": 1.5}}, timeout=SECONDS)
    assert answer.status_code == 200, answer.text
    [row] = answer.json()["predictions"]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(row["audio"])))
    assert rate == row["sample_rate"]
    assert len(samples) / rate == pytest.approx(row["seconds"])
    assert row["seconds"] > 0.1
    for bad, reason in (
        ({"dataframe_records": [{"text": "Salut.", "language": "xx"}]}, "unknown language 'xx'"),
        ({"dataframe_records": [{"text": "Hello.", "speaker": "nobody"}]}, "unknown speaker 'nobody'"),
        ({"dataframe_records": [{"language": "en"}]}, "text"),
    ):
        refused = requests.post(address, json=bad, timeout=SECONDS)
        assert refused.status_code == 400
        assert reason in json.loads(refused.text)["message"]
