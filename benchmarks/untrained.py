"""Evaluates a voice beyond its training: every speaker in every language, and texts longer than any recording.

Speech counts as identified if its Resemblyzer embedding is nearest to the right one of all speakers. The character
error rate is by the offline recognizer, so for English only.

    python -m benchmarks.untrained --voice <voice> --features <features> --corpus <corpus>
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from model.audio.io import resample
from model.corpus.manifest import read_manifest
from model.evaluation import recognizer
from model.features.store import FeatureStore
from model.speaker_encoder import Resemblyzer
from model.synthesis import Speech, Synthesizer
from model.text.normalize import normalize

TEXTS = {
    "en": (
        "The morning train was late, so we walked along the river.",
        "Please bring two cups of tea and a slice of bread.",
        "A good voice is easy to understand and pleasant to hear.",
        "She opened the window and looked at the quiet street.",
        "The children played in the garden until the rain came.",
        "My brother reads the newspaper every evening after dinner.",
    ),
    "fa": (
        "امروز هوا خیلی خوب است.",
        "من هر روز صبح یک فنجان چای می‌نوشم.",
        "کتاب روی میز کنار پنجره است.",
        "فردا با دوستانم به کوه می‌روم.",
    ),
}


def crossing(voice: Synthesizer, store: FeatureStore, background: recognizer.Recognizer) -> None:
    """Prints speaker identification and character error rate of every speaker in every language."""
    encoder = Resemblyzer.load()
    centroids = np.stack([store.speaker_centroid(name) for name in voice.speakers])
    print(f"{'speaker':16} {'language':8} {'right':>5} {'CER':>6}  cosine to {', '.join(voice.speakers)}")
    for index, speaker in enumerate(voice.speakers):
        for language in (name for name in voice.languages if name in TEXTS):
            speech = [voice.synthesize(text, language, speaker) for text in TEXTS[language]]
            cosines = encoder.embed_many([each.samples for each in speech], voice.sample_rate) @ centroids.T
            right = (cosines.argmax(1) == index).mean()
            error = f"{'-':>6}"
            if recognizer.supports(language):
                pairs = zip(TEXTS[language], speech, strict=True)
                error = f"{np.mean([character_error(text, each, background) for text, each in pairs]):6.3f}"
            means = ", ".join(f"{cosine:.2f}" for cosine in cosines.mean(0))
            print(f"{speaker:16} {language:8} {right:5.2f} {error}  {means}", flush=True)


def cloning(voice: Synthesizer, store: FeatureStore, corpus: Path) -> None:
    """Prints speaker identification of clones of a held-out recording of each speaker in its foreign languages."""
    encoder, recordings = Resemblyzer.load(), {clip.id: corpus / clip.audio for clip in read_manifest(corpus)}
    centroids = np.stack([store.speaker_centroid(name) for name in voice.speakers])
    held_out = [store.clips[position] for split in ("validation", "test") for position in store.split(split)]
    for index, speaker in enumerate(voice.speakers):
        clip = next(clip for clip in held_out if clip.speaker == speaker)
        for language in (name for name in voice.languages if name in TEXTS and name != clip.language):
            for reference_language in ("", clip.language):
                speech = [
                    voice.synthesize(
                        text, language, reference=recordings[clip.id], reference_language=reference_language
                    )
                    for text in TEXTS[language]
                ]
                cosines = encoder.embed_many([each.samples for each in speech], voice.sample_rate) @ centroids.T
                right, cosine = (cosines.argmax(1) == index).mean(), cosines[:, index].mean()
                print(
                    f"{speaker:16} {language:8} {right:5.2f} {cosine:6.2f}  cloned, "
                    f"reference language {reference_language or '-'}"
                )


def long_texts(voice: Synthesizer, store: FeatureStore, background: recognizer.Recognizer) -> None:
    """Prints the character error rate of all English sentences one by one and as one text."""
    longest = max(store.clips[position].seconds for position in store.split("train"))
    for speaker in (name for name, language in voice.voice.speaker_languages.items() if language == "en"):
        single = [character_error(text, voice.synthesize(text, "en", speaker), background) for text in TEXTS["en"]]
        joined = " ".join(TEXTS["en"])
        speech = voice.synthesize(joined, "en", speaker)
        print(
            f"{speaker:16} one by one {np.mean(single):.3f}, as one text "
            f"{character_error(joined, speech, background):.3f} "
            f"({len(speech.samples) / speech.sample_rate:.1f} s; longest training clip {longest:.1f} s)"
        )


def character_error(text: str, speech: Speech, background: recognizer.Recognizer) -> float:
    """Returns the character error rate of speech of an English text."""
    samples = resample(speech.samples, speech.sample_rate, recognizer.SAMPLE_RATE)
    return recognizer.character_error(normalize(text, "en").text, background.submit(samples).result())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", type=Path, required=True, help="folder of a voice that speaks English")
    parser.add_argument(
        "--features", type=Path, required=True, help="features of its training, with Resemblyzer embeddings"
    )
    parser.add_argument("--corpus", type=Path, required=True, help="corpus of these features")
    arguments = parser.parse_args()
    voice, store = Synthesizer(arguments.voice), FeatureStore(arguments.features)
    with recognizer.Recognizer(1) as background:
        crossing(voice, store, background)
        cloning(voice, store, arguments.corpus)
        long_texts(voice, store, background)


if __name__ == "__main__":
    main()
