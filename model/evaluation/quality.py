"""Predicted quality of speech without a reference: DNSMOS P.808 (Reddy et al. 2021), whose model speechmos ships."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np

from model.evaluation.metrics import Metric, not_applicable

SAMPLE_RATE = 16000
WINDOW = 144160
"""Length of the model's input in samples, 9.01 s; shorter speech is repeated to fill it."""
HOP = 160
"""Distance of two frames in samples."""
BANDS = 120
"""Mel bands of the model's input."""


class PredictedQuality:
    """DNSMOS P.808: the mean opinion score, 1 to 5, that listeners would give by ITU-T P.808; one thread."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # by default idle threads keep all cores busy
        with as_file(files("speechmos") / "dnsmos_models" / "model_v8.onnx") as path:
            self._session = onnxruntime.InferenceSession(str(path), options)

    def score(self, samples: np.ndarray) -> Metric:
        """Returns the score of speech: the mean over windows that begin one second apart.

        Args:
            samples: (N,) at 16 kHz, between -1 and 1.
        """
        if not len(samples):
            return not_applicable("there is no speech")
        speech = np.clip(samples, -1.0, 1.0).astype(np.float32)
        while len(speech) < WINDOW:
            speech = np.append(speech, speech)
        windows = 1 + int(len(speech) // SAMPLE_RATE - WINDOW / SAMPLE_RATE)  # as the package counts them
        starts = range(0, windows * SAMPLE_RATE, SAMPLE_RATE)
        return Metric(float(np.mean([self._score_window(speech[start : start + WINDOW]) for start in starts])))

    def _score_window(self, window: np.ndarray) -> float:
        import librosa

        power = librosa.feature.melspectrogram(
            y=window[:-HOP], sr=SAMPLE_RATE, n_fft=2 * HOP + 1, hop_length=HOP, n_mels=BANDS
        )
        features = (librosa.power_to_db(power, ref=np.max) + 40.0) / 40.0
        [answer] = self._session.run(None, {"input_1": features.T[None].astype(np.float32)})
        return float(answer[0, 0])
