"""The registered model as a server runs it: requests that the voice cannot fulfill are answered with the reason."""

import asyncio
import base64
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from components.register.pyfunc_model import VoiceModel
from components.register.run import voice_signature
from model.audio.io import AudioError
from model.synthesis import SynthesisError


class Voice:
    """Double of a voice with one English speaker."""

    def synthesize(self, text, *, reference=None, language="en", speaker="anna", reference_language="", prosody=None):
        if language != "en":
            raise SynthesisError(f"unknown language {language!r}; this voice has: en")
        if reference is not None and reference.read_bytes() != b"RIFF":
            raise AudioError(reference, "is no audio")
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


@pytest.fixture(scope="module")
def post():
    """Function: body, content type -> status and text of the answer of MLflow's scoring server, in this process."""
    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel, scoring_server
    from mlflow.pyfunc.model import _PythonModelPyfuncWrapper

    model = VoiceModel()
    model.synthesizer = Voice()
    signature = voice_signature()
    flavors = {"python_function": {"loader_module": "mlflow.pyfunc.model"}}
    wrapped = _PythonModelPyfuncWrapper(model, None, signature)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # the server sets it for good
        app = scoring_server.init(PyFuncModel(Model(signature=signature, flavors=flavors), model_impl=wrapped))

        def post(body: str | dict, content_type: str = "application/json") -> tuple[int, str]:
            text = body if isinstance(body, str) else json.dumps(body)
            return asyncio.run(_answer(app, text.encode(), content_type))

        yield post


async def _answer(app, body: bytes, content_type: str) -> tuple[int, str]:
    """Sends one request to an ASGI application."""
    sent: list[dict] = []
    received = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict:
        if (message := next(received, None)) is not None:
            return message
        return await asyncio.Future()  # the client stays connected

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/invocations"}
    scope |= {"raw_path": b"/invocations", "query_string": b"", "client": ("127.0.0.1", 1), "server": ("server", 80)}
    await app({**scope, "headers": [(b"content-type", content_type.encode())]}, receive, send)
    content = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], content.decode()


def records(**row: object) -> dict:
    return {"dataframe_records": [row]}


def test_the_server_answers_with_audio(post):
    status, text = post(records(text="Hello.", reference_wav="UklGRg=="))
    assert status == 200
    [row] = json.loads(text)["predictions"]
    assert base64.b64decode(row["audio"])[:4] == b"RIFF"
    assert (row["sample_rate"], row["seconds"]) == (22050, pytest.approx(100 / 22050))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (records(text="Salut.", language="fr"), "row 1: unknown language 'fr'; this voice has: en"),
        (records(text="  "), "row 1: text is empty"),
        (records(text=None), "row 1: text is empty"),
        (records(language="en"), "missing inputs ['text']"),
        (records(text=7), "text"),
        ({"dataframe_split": {"columns": ["text"], "data": []}}, "no rows"),
        ({**records(text="Hello."), "params": {"speed": 9.0}}, "row 1: speed is 9.0, but must lie between"),
        ({**records(text="Hello."), "params": {"speed": "fast"}}, "speed"),
        (records(text="Hello.", reference_wav="QUJD"), "reference.wav: is no audio"),
        ("{not json", "JSON"),
        ({"texts": ["Hello."]}, "dataframe_records"),
    ],
)
def test_the_server_answers_400_with_the_reason(post, body, reason):
    status, text = post(body)
    assert status == 400, text
    answer = json.loads(text)
    assert reason in answer["message"]
    assert "unexpected error" not in answer["message"]
