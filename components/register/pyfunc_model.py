"""The registered model in MLflow's pyfunc flavor: text in, WAV bytes out, loaded from safetensors without pickle."""

import base64
import binascii
import io
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel


class VoiceModel(PythonModel):
    """Pyfunc model whose `predict` turns rows of text into rows of audio."""

    def load_context(self, context: Any) -> None:
        from model.synthesis import Synthesizer

        encoder = context.artifacts.get("speaker_encoder")
        self.synthesizer = Synthesizer(Path(context.artifacts["voice"]), Path(encoder) if encoder else None)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Synthesizes every row.

        Args:
            context: Context of the model, passed by MLflow.
            model_input: Column `text`; optional columns `language`, `speaker`, `reference_wav` (bytes of a recording)
                and `reference_language`.
            params: `speed`, `pitch_scale`, `energy_scale`.

        Returns:
            Columns `audio` (bytes of a 16-bit WAV file), `sample_rate` (Hz) and `seconds`.

        Raises:
            MlflowException: the voice cannot fulfill the request of a row; a server answers 400 with the reason.
        """
        if model_input.empty:
            raise MlflowException.invalid_parameter_value("the request has no rows")
        records = model_input.to_dict("records")
        rows = [self._answer(number, row, params or {}) for number, row in enumerate(records, start=1)]
        return pd.DataFrame(rows, columns=["audio", "sample_rate", "seconds"])

    def _answer(self, number: int, row: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        from model.errors import MyXTTSError

        try:
            return self._synthesize(row, params)
        except (MyXTTSError, binascii.Error) as error:
            raise MlflowException.invalid_parameter_value(f"row {number}: {error}") from error

    def _synthesize(self, row: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        import soundfile

        from model.synthesis import ProsodyControls, SynthesisError

        if not _given(row.get("text")) or not row["text"].strip():
            raise SynthesisError("text is empty")
        with tempfile.TemporaryDirectory() as folder:
            reference = None
            if _given(row.get("reference_wav")):
                reference = Path(folder) / "reference.wav"
                reference.write_bytes(_as_bytes(row["reference_wav"]))
            speech = self.synthesizer.synthesize(
                row["text"],
                reference=reference,
                **{key: row[key] for key in ("language", "speaker", "reference_language") if _given(row.get(key))},
                prosody=ProsodyControls(**params),
            )
        buffer = io.BytesIO()
        soundfile.write(buffer, speech.samples, speech.sample_rate, format="WAV", subtype="PCM_16")
        seconds = len(speech.samples) / speech.sample_rate
        return {"audio": buffer.getvalue(), "sample_rate": speech.sample_rate, "seconds": seconds}


def _given(value: Any) -> bool:
    return isinstance(value, str | bytes) and len(value) > 0  # MLflow passes None or NaN for a missing optional column


def _as_bytes(value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    return base64.b64decode(value, validate=True)


mlflow.models.set_model(VoiceModel())
