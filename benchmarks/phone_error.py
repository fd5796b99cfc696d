"""Measures how well the phone error rate agrees with the character error rate of a speech recognizer.

    python -m benchmarks.phone_error <evaluation> <evaluation> ... --features <features>
    python -m benchmarks.phone_error <evaluation> <evaluation> ... --features <features> --seconds 30 60 120

The evaluations (folders of `myxtts evaluate`) are of several voices on the same English sentences. Printed are, for
phone recognizers that are trained on all training recordings, or on some seconds of them:

- the phone error rate of the recordings,
- Spearman's correlation of both error rates over the sentences of all voices,
- that of the differences between two voices on the same sentence, which the gate looks at,
- that of the means of the voices,
- how much the mean phone error rate changes with the mean character error rate: the ratio of equivalent margins,

with 95 % intervals over sentences (bootstrap), and the means of each voice.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from model.audio.io import read_audio
from model.audio.mel import MelExtractor
from model.config.evaluation import RegistryConfig
from model.evaluation.phones import PhoneRecognizer
from model.evaluation.statistics import estimate_mean
from model.features.store import FeatureStore
from model.text.encode import encode

RESAMPLES = 1000
Clip = tuple[np.ndarray, np.ndarray]
"""Log-mel (S, M) of speech and symbols (T,) of its text."""


class Evaluation:
    """Speech and character error rates of one voice.

    Attributes:
        name: Name of its folder.
        character_errors: Sentence -> character error rate.
        speech: Sentence -> synthesized speech.
        recordings: Sentence -> recording, where there is one.
    """

    def __init__(self, folder: Path, extractor: MelExtractor) -> None:
        result = json.loads((folder / "metrics.json").read_text("utf-8"))
        self.name = folder.name
        self.character_errors: dict[str, float] = {}
        self.speech: dict[str, Clip] = {}
        self.recordings: dict[str, Clip] = {}
        clips = [clip for clip in result["clips"] if clip["part"] == "unseen"]
        errors = [clip["metrics"]["character_error"]["synthesised"] for clip in clips]
        for item, error in [
            *zip(clips, errors, strict=True),
            *((text, text["character_error"]) for text in result["texts"]),
        ]:
            symbols = encode(item["text"], item["language"]).ids[:, 0]
            self.character_errors[item["sentence"]] = error["value"]
            for kind, found in (("synthesised", self.speech), ("recording", self.recordings)):
                if kind in item["audio"]:
                    samples = read_audio(folder / item["audio"][kind], extractor.audio.sample_rate)
                    found[item["sentence"]] = (extractor.numpy(samples), symbols)


def training_clips(store: FeatureStore, seconds: float) -> list[Clip]:
    """Returns the first training clips in a fixed random order, up to a duration."""
    positions = np.random.default_rng(0).permutation(store.split("train"))
    lengths = np.array([store.clips[int(position)].seconds for position in positions])
    features = [store.clip(int(position)) for position in positions[: np.searchsorted(lengths.cumsum(), seconds) + 1]]
    return [(np.array(clip.mel), clip.ids[:, 0]) for clip in features]


def of_sentences(character: np.ndarray, phone: np.ndarray) -> float:
    """Returns the correlation of both error rates (voices, sentences)."""
    return float(spearmanr(character.ravel(), phone.ravel())[0])


def of_differences(character: np.ndarray, phone: np.ndarray) -> float:
    """Returns the correlation of the differences between every two voices on each sentence."""
    pairs = list(combinations(range(len(character)), 2))
    changes = [np.concatenate([rates[a] - rates[b] for a, b in pairs]) for rates in (character, phone)]
    return float(spearmanr(*changes)[0])


def of_voices(character: np.ndarray, phone: np.ndarray) -> float:
    """Returns the correlation of the means of the voices."""
    return float(spearmanr(character.mean(axis=1), phone.mean(axis=1))[0])


def slope(character: np.ndarray, phone: np.ndarray) -> float:
    """Returns by how much the mean phone error rate of a voice changes with its mean character error rate."""
    return float(np.polyfit(character.mean(axis=1), phone.mean(axis=1), 1)[0])


def with_interval(
    statistic: Callable[[np.ndarray, np.ndarray], float], character: np.ndarray, phone: np.ndarray
) -> str:
    """Returns a statistic with its 95 % interval over sentences, as text."""
    random = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        drawn = random.integers(character.shape[1], size=character.shape[1])
        values.append(statistic(character[:, drawn], phone[:, drawn]))
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{statistic(character, phone):.2f} ({low:.2f} to {high:.2f})"


def report(evaluations: Sequence[Evaluation], store: FeatureStore, seconds: float) -> None:
    """Prints the agreement of a recognizer that is trained on some seconds of the training recordings."""
    clips = training_clips(store, seconds)
    duration = sum(len(mel) for mel, _ in clips) * store.audio.hop_length / store.audio.sample_rate
    recognizer = PhoneRecognizer.train(clips)
    recorded = [recognizer.errors(*clip) for clip in evaluations[0].recordings.values()]
    sentences = sorted(set.intersection(*(set(each.speech) for each in evaluations)))
    character = np.array([[each.character_errors[name] for name in sentences] for each in evaluations])
    phone = np.array([[recognizer.errors(*each.speech[name]) for name in sentences] for each in evaluations])
    ratio, margin = slope(character, phone), RegistryConfig().character_error_margin
    print(f"\n{duration:.0f} s of training recordings, {len(evaluations)} voices, {len(sentences)} sentences")
    print(f"  phone error rate of the recordings   {np.mean(recorded):.3f}")
    print(f"  correlation over sentences           {with_interval(of_sentences, character, phone)}")
    print(f"  correlation of differences           {with_interval(of_differences, character, phone)}")
    print(f"  correlation of voices                {of_voices(character, phone):.2f}")
    print(f"  change with the character error rate {with_interval(slope, character, phone)}")
    print(f"  equal to a character error of {margin:g}     {ratio * margin:.3f}")
    spread = np.median([(phone[a] - phone[b]).std(ddof=1) for a, b in combinations(range(len(phone)), 2)])
    print(f"  deviation of differences             {spread:.3f}")
    for each, ours, theirs in zip(evaluations, character, phone, strict=True):
        rates = " ".join(
            f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})" for found in map(estimate_mean, (ours, theirs))
        )
        print(f"  {each.name:36} {rates}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", type=Path, nargs="+", help="folders of evaluations on the same sentences")
    parser.add_argument("--features", type=Path, required=True, help="features of their corpus")
    parser.add_argument("--seconds", type=float, nargs="+", default=[np.inf], help="amounts of training recordings")
    arguments = parser.parse_args()
    store = FeatureStore(arguments.features)
    extractor = MelExtractor(store.audio)
    evaluations = [Evaluation(folder, extractor) for folder in arguments.evaluations]
    for seconds in arguments.seconds:
        report(evaluations, store, seconds)


if __name__ == "__main__":
    main()
