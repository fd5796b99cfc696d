"""Whether a voice sounds like whom it should, and obeys: speaker swap, pitch, energy and speed, on unseen sentences.

Four generated English voices (flite), one tiny model without and one with style tokens and contrastive speaker loss.
Every held-out sentence is spoken by every speaker, by name and from a held-out reference clip; the speech counts as
right when the speaker encoder (Resemblyzer) finds it nearest to the right speaker's training clips. Controls are
measured on the waveform: median F0, level of the louder frames, and length, each against the plain sentence.

    python benchmarks/speakers.py --folder /tmp/speakers --steps 600
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from generated_data import prepare

from model.audio.pitch import track_pitch
from model.config import Config, resolve
from model.corpus.manifest import read_manifest
from model.features.store import FeatureStore
from model.speaker_encoder import SpeakerEncoder
from model.synthesis import Speech, Synthesizer
from model.training.trainer import train

CORPUS = {
    "model_size": "tiny",
    "corpus.engine": "flite",
    "corpus.english_voices": 4,
    "corpus.persian_voices": 0,
    "corpus.sentences_per_voice": 40,
    "training.evaluation_interval": 300,
}
KINDS = {
    "plain": {},
    "style tokens + contrastive": {"model.enable_gst": True, "loss.use_contrastive_speaker_loss": True},
}
FACTOR = 1.2


def unseen_sentences(store: FeatureStore, count: int) -> list[str]:
    """Texts of held-out clips that no training clip says."""
    trained = {store.clips[position].text for position in store.split("train")}
    held_out = store.split("validation") + store.split("test")
    return list(dict.fromkeys(t for t in (store.clips[i].text for i in held_out) if t not in trained))[:count]


def swap(voice: Synthesizer, corpus: Path, store: FeatureStore, sentences: list[str]) -> dict[str, float]:
    """Share of sentences that sound most like their speaker, and the mean cosine to it."""
    encoder = SpeakerEncoder.load()
    centroids = np.stack([store.speaker_centroid(name) for name in store.speakers])
    audio = {clip.id: corpus / clip.audio for clip in read_manifest(corpus)}
    held_out = store.split("validation") + store.split("test")
    result = {}
    for way in ("by name", "by reference"):
        right, cosines = [], []
        for number, speaker in enumerate(store.speakers):
            own = [audio[store.clips[i].id] for i in held_out if store.clips[i].speaker == speaker]
            if way == "by reference" and not own:
                continue
            for i, text in enumerate(sentences):
                reference = own[i % len(own)] if way == "by reference" else None
                speech = voice.synthesize(text, speaker=speaker, reference=reference, language="en")
                similarity = centroids @ encoder.embed(speech.samples, speech.sample_rate)
                right.append(int(similarity.argmax()) == number)
                cosines.append(float(similarity[number]))
        result[f"{way}: right speaker"] = float(np.mean(right))
        result[f"{way}: cosine"] = float(np.mean(cosines))
    return result


def controls(voice: Synthesizer, config: Config, store: FeatureStore, sentences: list[str]) -> dict[str, float]:
    """Measured change of pitch, amplitude and length when each is asked to change by `FACTOR`; mean over sentences."""

    def pitch(speech: Speech) -> float:
        f0 = track_pitch(speech.samples, config.audio, config.features)
        return float(np.median(f0[f0 > 0]))

    def level(speech: Speech) -> float:
        hop = config.audio.hop_length
        frames = speech.samples[: len(speech.samples) // hop * hop].reshape(-1, hop)
        loudness = np.sqrt(np.square(frames).mean(1))
        return float(np.exp(np.log(loudness[loudness > np.quantile(loudness, 0.4)]).mean()))

    asked: dict[str, tuple[str, Callable[[Speech], float], float]] = {
        "pitch": ("pitch_scale", pitch, FACTOR),
        "energy": ("energy_scale", level, FACTOR),
        "length": ("speed", lambda speech: len(speech.samples), 1 / FACTOR),
    }
    measured: dict[str, list[float]] = {name: [] for name in asked}
    for i, text in enumerate(sentences):
        speaker = store.speakers[i % len(store.speakers)]
        plain = voice.synthesize(text, speaker=speaker, language="en")
        for name, (control, measure, _) in asked.items():
            changed = voice.synthesize(text, speaker=speaker, language="en", **{control: FACTOR})
            measured[name].append(measure(changed) / measure(plain))
    found = {f"{name} x {wanted:.3f}": float(np.mean(measured[name])) for name, (_, _, wanted) in asked.items()}
    return found


def style_spread(voice: Synthesizer, sentence: str) -> float | None:
    """Mean deviation of the log-mel over the style tokens, each alone, durations aside; None without style tokens."""
    settings = voice.config.model
    if not settings.enable_gst:
        return None
    spoken = [
        voice.synthesize(sentence, style_weights=np.eye(settings.gst_num_style_tokens)[token])
        for token in range(settings.gst_num_style_tokens)
    ]
    return float(np.stack([speech.mel.mean(0) for speech in spoken]).std(0).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="Where corpus, features and trainings are, or go.")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--sentences", type=int, default=6)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = {**CORPUS, "training.max_steps": arguments.steps}
    corpus, store = prepare(resolve(None, None, settings).config, arguments.folder)
    sentences = unseen_sentences(store, arguments.sentences)
    results = {}
    for kind in arguments.kinds:
        config = resolve(None, None, {**settings, **KINDS[kind]}).config
        run = arguments.folder / kind.replace(" ", "-") / str(arguments.steps)
        voice = Synthesizer.load(train(config, arguments.folder / "features", run).voice)
        results[kind] = {
            "sentences": len(sentences),
            **swap(voice, corpus, store, sentences),
            **controls(voice, config, store, sentences),
            "deviation of the mel over style tokens": style_spread(voice, sentences[0]),
        }
        print(json.dumps({kind: results[kind]}, indent=1), flush=True)


if __name__ == "__main__":
    main()
