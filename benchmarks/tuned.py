"""Gain of a study: its best trial against its baseline, on the recordings of the test split.

If the baseline is the best trial, the second best one is compared with it. Neither training nor the study has seen the
test split. Intervals are of 95 %, of the mean of the differences per sentence.

    python -m benchmarks.tuned <study>
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from components.feature_remote import open_store
from components.state import State
from components.studies.attributes import BASELINE
from components.studies.study import load_study
from components.studies.table import complete_trials, is_feasible
from model.audio.dtw import dtw_path
from model.audio.io import resample
from model.audio.mel import MelExtractor
from model.evaluation import metrics, recognizer
from model.evaluation.statistics import estimate_mean
from model.features.store import FeatureStore
from model.synthesis import Synthesizer
from model.text.normalize import normalize
from pipelines.study import fetch_data

METRICS = ("character_error", "mel_cepstral_distortion")


def score(voice: Path, store: FeatureStore) -> np.ndarray:
    """Returns the `METRICS` of a voice on the texts of the test split, (clips, metrics)."""
    synthesizer, extractor, rows = Synthesizer(voice), MelExtractor(store.audio), []
    for position in tqdm(store.split("test"), desc=voice.parent.name, file=sys.stderr, mininterval=5.0):
        clip, recorded = store.clips[position], np.asarray(store.clip(position).mel)
        speech = synthesizer.synthesize(clip.text, language=clip.language, speaker=clip.speaker)
        transcript = recognizer.transcribe(resample(speech.samples, store.audio.sample_rate, recognizer.SAMPLE_RATE))
        error = recognizer.character_error(normalize(clip.text, clip.language).text, transcript)
        mel = extractor.numpy(speech.samples)
        path = dtw_path(metrics.mel_cepstrum(mel), metrics.mel_cepstrum(recorded))
        rows.append((error, metrics.mel_cepstral_distortion(mel, recorded, path).value))
    return np.array(rows, np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="name of the study")
    given = parser.parse_args()
    state = State.locate().prepare()
    study = load_study(state, given.study)
    context = fetch_data(state, study)
    ranked = sorted(filter(is_feasible, complete_trials(study)), key=lambda trial: trial.values)
    (baseline,) = (trial.number for trial in ranked if trial.user_attrs.get(BASELINE))
    other = next((trial.number for trial in ranked if trial.number != baseline), None)
    if other is None:
        sys.exit(f"no trial of {given.study} but its baseline is complete and feasible")
    store = open_store(context.features, state)
    scores = {number: score(context.folder / f"trial-{number}" / "voice", store) for number in (baseline, other)}
    found: dict[str, Any] = {
        "baseline": baseline,
        "other": other,
        "study": {trial.number: trial.values for trial in ranked},
        "sentences": len(scores[other]),
    }
    for column, name in enumerate(METRICS):
        estimate = estimate_mean((scores[other] - scores[baseline])[:, column].tolist())
        means = {f"trial {number}": float(values[:, column].mean()) for number, values in scores.items()}
        found[name] = {**means, "difference": estimate.mean, "low": estimate.low, "high": estimate.high}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
