"""Whether a voice sounds like whom it should, and obeys: speaker swap, cloning, style, pitch, energy and speed.

Every speaker says held-out sentences of its language, by name and from a held-out clip of its own. The speech counts as
right when the speaker encoder (Resemblyzer) finds it nearest to the right one of all speakers' training clips. Speakers
that were never trained on are cloned from one of their clips. What the vocoder alone costs is told by recordings that
went through it.

Without recordings, four generated English voices (flite), and a model without and one with style tokens and contrastive
speaker loss. With them, one model with style tokens and latent; a tenth of the speakers is held out. Speakers of few
clips are harder to align than one reader: batches are larger there, and the soft alignment is pulled late.

    python benchmarks/speakers.py --folder /tmp/speakers --steps 600
    python benchmarks/speakers.py --folder /tmp/speakers --steps 2000 --recordings ../shared/data/multispeaker
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from controls import FACTOR, controls, unseen_sentences
from generated_data import prepare

from model.config.resolution import resolve
from model.corpus.manifest import read_manifest
from model.features.store import FeatureStore
from model.speaker_encoder import Resemblyzer
from model.synthesis import StyleControls, Synthesizer
from model.training.trainer import train

GENERATED = {
    "model_size": "tiny",
    "corpus.engine": "flite",
    "corpus.english_voices": 4,
    "corpus.persian_voices": 0,
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
KINDS = {
    "plain": {},
    "style tokens + contrastive": STYLE,
    "style tokens + latent": {"model.enable_gst": True, "model.use_variational_encoder": True},
}
SAMPLES = 10
"""Latents that are drawn."""


@dataclass
class Judge:
    """The speaker encoder, and what it should hear."""

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
        """Positions of a speaker's held-out clips."""
        return [i for i in self.held_out if self.store.clips[i].speaker == speaker]

    def recording(self, position: int) -> Path:
        return self.audio[self.store.clips[position].id]

    def texts(self, speaker: str) -> list[str]:
        return unseen_sentences(self.store, self.store.speaker_languages[speaker], self.sentences)

    def swap(self, voice: Synthesizer) -> dict[str, float]:
        """Share of speech that is nearest to its speaker among all seen ones, and its mean cosine to it."""
        by_name = [(name, text, None) for name in self.seen for text in self.texts(name)]
        by_reference = [
            (name, text, self.recording(own[i % len(own)]))
            for name in self.seen
            if (own := self.clips(name))
            for i, text in enumerate(self.texts(name))
        ]
        found: dict[str, float] = {"seen speakers": len(self.seen)}
        for way, requests in (("by name", by_name), ("by reference", by_reference)):
            right, cosines = [], []
            for speaker, text, reference in requests:
                similarity = self._similarity(voice, text, speaker, reference)
                number = self.seen.index(speaker)
                right.append(int(similarity.argmax()) == number)
                cosines.append(float(similarity[number]))
            found |= {
                f"{way}: sentences": len(requests),
                f"{way}: right speaker": float(np.mean(right)),
                f"{way}: cosine": float(np.mean(cosines)),
            }
        return found

    def vocoded(self, voice: Synthesizer) -> dict[str, float]:
        """Held-out recordings through mel and vocoder, judged likewise: what no acoustic model can be better than."""
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

    def clone(self, voice: Synthesizer) -> dict[str, float]:
        """Speakers never heard in training: cosine of their clones to the recording cloned from, and to whom of the
        seen speakers they are most like instead; empty where every speaker was seen."""
        own, nearest, best = [], [], []
        for speaker in self.unseen:
            position = self.clips(speaker)[0]
            vector = self.store.speaker_vectors[position]
            for text in self.texts(speaker):
                speech = voice.synthesize(
                    text, reference=self.recording(position), language=self.store.speaker_languages[speaker]
                )
                heard = self.encoder.embed(speech.samples, speech.sample_rate)
                own.append(float(heard @ vector))
                nearest.append(float((self.centroids @ heard).max()))
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


def spread(say: Callable[[int], np.ndarray], count: int) -> float:
    """Mean deviation of the log-mel, averaged over time, over `count` ways to say one sentence."""
    return float(np.stack([say(i).mean(0) for i in range(count)]).std(0).mean())


def style_spread(voice: Synthesizer, speaker: str, sentence: str) -> dict[str, float]:
    """How much style tokens (each alone) and latent (drawn from the prior) change the mel; for the parts there are."""
    settings, found = voice.config.model, {}
    if settings.enable_gst:
        each = np.eye(settings.gst_num_style_tokens)
        found["deviation of the mel over style tokens"] = spread(
            lambda i: voice.synthesize(sentence, speaker=speaker, style=StyleControls(token_weights=each[i])).mel,
            len(each),
        )
    if settings.use_variational_encoder:
        torch.manual_seed(0)
        found["deviation of the mel over latents"] = spread(
            lambda _: voice.synthesize(sentence, speaker=speaker, style=StyleControls(variation=1.0)).mel, SAMPLES
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="Where corpus, features and trainings are, or go.")
    parser.add_argument("--recordings", type=Path, help="A table of recordings; without it, voices are generated.")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--sentences", type=int, default=6, help="Of each speaker.")
    parser.add_argument("--kinds", nargs="*", default=[], choices=list(KINDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = {**GENERATED, "training.max_steps": arguments.steps}
    kinds = arguments.kinds or list(KINDS)[:2]
    if arguments.recordings:
        settings = {**RECORDED, "corpus.path": str(arguments.recordings), "training.max_steps": arguments.steps}
        kinds = arguments.kinds or list(KINDS)[2:]
    corpus, store = prepare(resolve(None, None, settings).config, arguments.folder)
    judge = Judge(corpus, store, arguments.sentences)
    requests = [(name, text) for i, name in enumerate(judge.seen) for text in judge.texts(name)[i % 6 :][:1]]
    for kind in kinds:
        config = resolve(None, None, {**settings, **KINDS[kind]}).config
        run = arguments.folder / kind.replace(" ", "-") / str(arguments.steps)
        trained = train(config, arguments.folder / "features", run)
        voice = Synthesizer(trained.voice)
        obeyed = controls(voice, requests[: arguments.sentences], FACTOR)
        style = ("style_", "active_", "kl_")
        found = {
            **judge.swap(voice),
            **judge.vocoded(voice),
            **judge.clone(voice),
            **{f"{name} asked x {FACTOR}": float(np.mean(each)) for name, each in obeyed.items()},
            **style_spread(voice, *requests[0]),
            **{name: value for name, value in trained.metrics.items() if name.split("/")[1].startswith(style)},
        }
        print(json.dumps({kind: found}, indent=1), flush=True)


if __name__ == "__main__":
    main()
