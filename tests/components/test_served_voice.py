"""The registered model as a server runs it: requests that the voice cannot fulfill are answered with the reason."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from components.register.pyfunc_model import VoiceModel
from model.synthesis import SynthesisError


class Voice:
    """Double of a voice with one English speaker."""

    def synthesize(self, text, *, reference=None, language="en", speaker="anna", reference_language="", prosody=None):
        if language != "en":
            raise SynthesisError(f"unknown language {language!r}; this voice has: en")
        if reference is not None:
            assert reference.read_bytes() == b"RIFF"
        return SimpleNamespace(samples=np.zeros(100, np.float32), sample_rate=22050)


@pytest.fixture
def served():
    model = VoiceModel()
    model.synthesizer = Voice()
    return lambda rows, params=None: model.predict(None, pd.DataFrame(rows), params)


def test_a_request_is_answered_with_audio(served):
    answer = served([{"text": "Hello."}, {"text": "Hello.", "reference_wav": "UklGRg=="}])
    assert list(answer.columns) == ["audio", "sample_rate", "seconds"]
    assert [audio[:4] for audio in answer["audio"]] == [b"RIFF"] * 2


@pytest.mark.parametrize(
    ("row", "params", "reason"),
    [
        ({"text": "Salut.", "language": "fr"}, None, "row 2: unknown language 'fr'; this voice has: en"),
        ({"text": "Hello."}, {"speed": 9.0}, "row 1: speed is 9.0, but must lie between"),
        ({"text": "Hello.", "reference_wav": "no base64!"}, None, "row 2: "),
    ],
)
def test_a_request_that_the_voice_cannot_fulfill_is_answered_400_with_the_reason(served, row, params, reason):
    with pytest.raises(MlflowException) as caught:
        served([{"text": "Hello."}, row], params)
    assert caught.value.get_http_status_code() == 400
    assert caught.value.message.startswith(reason)
