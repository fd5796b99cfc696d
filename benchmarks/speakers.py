"""Evaluates speaker identity, cloning, style and prosody controls of trained voices.

Every speaker synthesizes held-out sentences of its language, selected by name and cloned from a held-out clip. Speech
counts as identified if, among all speakers of the training, its Resemblyzer embedding is nearest to the right one.
Speakers without training clips are cloned from one of their clips. Vocoded recordings show the loss that is due to the
vocoder.

Without recordings, four English voices are generated (flite), and two models are trained: a plain one, and one with
style tokens and contrastive speaker loss. With recordings, one model with style tokens and latent is trained, and a
tenth of the speakers is held out. Speakers with few clips are harder to align than a single reader, so batches are
larger there and binarization of the alignment starts later.

    python -m benchmarks.speakers --folder /tmp/speakers --steps 600
    python -m benchmarks.speakers --folder /tmp/speakers --steps 2000 --recordings <folder of a multi-speaker table>
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.controls import FACTOR, measure_controls, unseen_sentences
from benchmarks.generated_corpus import prepare
from model.config.resolution import resolve
from model.config.training import TrainSettings
from model.corpus.manifest import read_manifest
from model.features.store import FeatureStore
from model.speaker_encoder import Resemblyzer
from model.synthesis import StyleControls, Synthesizer
from model.training.trainer import train

GENERATED = {
    "model_size": "tiny",
    "corpus.engine": "flite",
    "corpus.generated_voices": {"en": 4},
    "corpus.sentences_per_voice": 40,
    "training.evaluation_interval": 300,
}
RECORDED = {
    "model_size": "tiny",
    "corpus.format": "table",
    "training.max_batch_frames": 4096,
    "split.held_out_speakers": 0.1,
    "training.evaluation_interval": 500,
    "loss.binarization_start": 0.5,
    "loss.binarization_end": 0.7,
}
STYLE = {"model.enable_gst": True, "loss.use_contrastive_speaker_loss": True}
VARIANTS = {
    "plain": {},
    "style tokens + contrastive": STYLE,
    "style tokens + latent": {"model.enable_gst": True, "model.use_variational_encoder": True},
}
SAMPLES = 10
"""Latents that are sampled."""


@dataclass
class SpeakerEvaluation:
    """Evaluates voices by the speaker embeddings of their speech.

    Attributes:
        corpus: Folder of the corpus.
        store: Its features, with Resemblyzer embeddings.
        sentences: Sentences per speaker.
    """

    corpus: Path
    store: FeatureStore
    sentences: int

    def __post_init__(self) -> None:
        self.encoder = Resemblyzer.load()
        self.audio = {clip.id: self.corpus / clip.audio for clip in read_manifest(self.corpus)}
        self.held_out = self.store.split("validation") + self.store.split("test")
        self.seen = self.store.trained_speakers
        self.unseen = [name for name in self.store.speakers if name not in self.seen]
        self.centroids = np.stack([self.store.speaker_centroid(name) for name in self.seen])

    def clips(self, speaker: str) -> list[int]:
        """Returns the positions of a speaker's held-out clips."""
        return [i for i in self.held_out if self.store.clips[i].speaker == speaker]

    def recording(self, position: int) -> Path:
        return self.audio[self.store.clips[position].id]

    def texts(self, speaker: str) -> list[str]:
        return unseen_sentences(self.store, self.store.speaker_languages[speaker], self.sentences)

    def identification(self, voice: Synthesizer) -> dict[str, float]:
        """Returns the share of speech that is nearest to its speaker, and its mean cosine similarity."""
        by_name = [(name, text, None) for name in self.seen for text in self.texts(name)]
        by_reference = [
            (name, text, self.recording(clips[i % len(clips)]))
            for name in self.seen
            if (clips := self.clips(name))
            for i, text in enumerate(self.texts(name))
        ]
        results: dict[str, float] = {"seen speakers": len(self.seen)}
        for method, requests in (("by name", by_name), ("by reference", by_reference)):
            right, cosines = [], []
            for speaker, text, reference in requests:
                similarity = self._similarity(voice, text, speaker, reference)
                number = self.seen.index(speaker)
                right.append(int(similarity.argmax()) == number)
                cosines.append(float(similarity[number]))
            results |= {
                f"{method}: sentences": len(requests),
                f"{method}: right speaker": float(np.mean(right)),
                f"{method}: cosine": float(np.mean(cosines)),
            }
        return results

    def vocoded(self, voice: Synthesizer) -> dict[str, float]:
        """Returns the same metrics of held-out recordings through the vocoder, an upper bound for acoustic models."""
        right, cosines = [], []
        for position in self.held_out:
            speaker = self.store.clips[position].speaker
            if speaker not in self.seen:
                continue
            samples = voice.vocoder(np.array(self.store.clip(position).mel))
            similarity = self.centroids @ self.encoder.embed(samples, voice.sample_rate)
            number = self.seen.index(speaker)
            right.append(int(similarity.argmax()) == number)
            cosines.append(float(similarity[number]))
        return {"vocoded: right speaker": float(np.mean(right)), "vocoded: cosine": float(np.mean(cosines))}

    def cloning(self, voice: Synthesizer) -> dict[str, float]:
        """Returns cosine similarities of clones of unseen speakers to their reference and to other speakers.

        The result is empty if all speakers have training clips.
        """
        own, nearest, best = [], [], []
        for speaker in self.unseen:
            position = self.clips(speaker)[0]
            vector = self.store.speaker_vectors[position]
            for text in self.texts(speaker):
                speech = voice.synthesize(
                    text, reference=self.recording(position), language=self.store.speaker_languages[speaker]
                )
                embedding = self.encoder.embed(speech.samples, speech.sample_rate)
                own.append(float(embedding @ vector))
                nearest.append(float((self.centroids @ embedding).max()))
                best.append(own[-1] > nearest[-1])
        if not own:
            return {}
        return {
            "unseen speakers": len(self.unseen),
            "unseen: cosine to the reference": float(np.mean(own)),
            "unseen: cosine to the nearest seen speaker": float(np.mean(nearest)),
            "unseen: nearer to the reference than to any seen speaker": float(np.mean(best)),
        }

    def _similarity(self, voice: Synthesizer, text: str, speaker: str, reference: Path | None) -> np.ndarray:
        language = self.store.speaker_languages[speaker]
        speech = voice.synthesize(text, speaker=speaker, reference=reference, language=language)
        return self.centroids @ self.encoder.embed(speech.samples, speech.sample_rate)


def deviation(synthesize: Callable[[int], np.ndarray], count: int) -> float:
    """Returns the mean standard deviation of the time-averaged log-mel over `count` versions of one sentence."""
    return float(np.stack([synthesize(i).mean(0) for i in range(count)]).std(0).mean())


def style_effect(voice: Synthesizer, speaker: str, sentence: str) -> dict[str, float]:
    """Returns how much single style tokens and latents from the prior change the mel, where the model has them."""
    settings, effects = voice.config.model, {}
    if settings.enable_gst:
        each = np.eye(settings.gst_num_style_tokens)
        effects["deviation of the mel over style tokens"] = deviation(
            lambda i: voice.synthesize(sentence, speaker=speaker, style=StyleControls(token_weights=each[i])).mel,
            len(each),
        )
    if settings.use_variational_encoder:
        torch.manual_seed(0)
        effects["deviation of the mel over latents"] = deviation(
            lambda _: voice.synthesize(sentence, speaker=speaker, style=StyleControls(variation=1.0)).mel, SAMPLES
        )
    return effects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="Folder of corpus, features and trainings.")
    parser.add_argument("--recordings", type=Path, help="Folder of a table of recordings [default: generate voices].")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--sentences", type=int, default=6, help="Sentences per speaker.")
    parser.add_argument("--variants", nargs="*", default=[], choices=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = {**GENERATED, "training.max_steps": arguments.steps}
    variants = arguments.variants or list(VARIANTS)[:2]
    if arguments.recordings:
        settings = {**RECORDED, "corpus.path": str(arguments.recordings), "training.max_steps": arguments.steps}
        variants = arguments.variants or list(VARIANTS)[2:]
    corpus, store = prepare(resolve(None, None, settings).config, arguments.folder)
    evaluation = SpeakerEvaluation(corpus, store, arguments.sentences)
    requests = [(name, text) for i, name in enumerate(evaluation.seen) for text in evaluation.texts(name)[i % 6 :][:1]]
    for variant in variants:
        config = resolve(None, None, {**settings, **VARIANTS[variant]}).config
        run = arguments.folder / variant.replace(" ", "-") / str(arguments.steps)
        trained = train(TrainSettings.of(config), arguments.folder / "features", run)
        voice = Synthesizer(trained.voice)
        changes = measure_controls(voice, requests[: arguments.sentences], FACTOR)
        style = ("style_", "active_", "kl_")
        results = {
            **evaluation.identification(voice),
            **evaluation.vocoded(voice),
            **evaluation.cloning(voice),
            **{f"{name} requested x {FACTOR}": float(np.mean(each)) for name, each in changes.items()},
            **style_effect(voice, *requests[0]),
            **{name: value for name, value in trained.metrics.items() if name.split("/")[1].startswith(style)},
        }
        print(json.dumps({variant: results}, indent=1), flush=True)


if __name__ == "__main__":
    main()
