"""What a voice was never trained for: every speaker in every language, and texts longer than any recording.

Speech counts as right when the speaker encoder (Resemblyzer) finds it nearest to its own speaker's training clips. The
character error is of the offline recogniser, so of English alone.

    python benchmarks/untrained.py --voice <voice> --features <features> --corpus <corpus>
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


def crossing(voice: Synthesizer, store: FeatureStore, listener: recognizer.Recognizer) -> None:
    """Print, for every speaker and language, whose voice it is and how well it is understood."""
    judge = Resemblyzer.load()
    known = np.stack([store.speaker_centroid(name) for name in voice.speakers])
    print(f"{'speaker':16} {'language':8} {'right':>5} {'CER':>6}  cosine to {', '.join(voice.speakers)}")
    for number, speaker in enumerate(voice.speakers):
        for language in (name for name in voice.languages if name in TEXTS):
            speech = [voice.synthesize(text, language, speaker) for text in TEXTS[language]]
            cosines = judge.embed_many([said.samples for said in speech], voice.sample_rate) @ known.T
            right = (cosines.argmax(1) == number).mean()
            heard = f"{'-':>6}"
            if recognizer.understands(language):
                heard = (
                    f"{np.mean([error(*pair, listener) for pair in zip(TEXTS[language], speech, strict=True)]):6.3f}"
                )
            means = ", ".join(f"{cosine:.2f}" for cosine in cosines.mean(0))
            print(f"{speaker:16} {language:8} {right:5.2f} {heard}  {means}", flush=True)


def cloning(voice: Synthesizer, store: FeatureStore, corpus: Path) -> None:
    """Print whose voice a clone of each speaker's first held-out recording has in the languages it does not speak."""
    judge, recordings = Resemblyzer.load(), {clip.id: corpus / clip.audio for clip in read_manifest(corpus)}
    known = np.stack([store.speaker_centroid(name) for name in voice.speakers])
    held_out = [store.clips[position] for split in ("validation", "test") for position in store.split(split)]
    for number, speaker in enumerate(voice.speakers):
        clip = next(clip for clip in held_out if clip.speaker == speaker)
        for language in (name for name in voice.languages if name in TEXTS and name != clip.language):
            for told in ("", clip.language):
                speech = [
                    voice.synthesize(text, language, reference=recordings[clip.id], reference_language=told)
                    for text in TEXTS[language]
                ]
                cosines = judge.embed_many([said.samples for said in speech], voice.sample_rate) @ known.T
                right, cosine = (cosines.argmax(1) == number).mean(), cosines[:, number].mean()
                print(f"{speaker:16} {language:8} {right:5.2f} {cosine:6.2f}  cloned, reference language {told or '-'}")


def long_texts(voice: Synthesizer, store: FeatureStore, listener: recognizer.Recognizer) -> None:
    """Print the character error of all English sentences said one by one and at once."""
    longest = max(store.clips[position].seconds for position in store.split("train"))
    for speaker in (name for name, language in voice.voice.speaker_languages.items() if language == "en"):
        alone = [error(text, voice.synthesize(text, "en", speaker), listener) for text in TEXTS["en"]]
        whole = " ".join(TEXTS["en"])
        speech = voice.synthesize(whole, "en", speaker)
        print(
            f"{speaker:16} one by one {np.mean(alone):.3f}, at once {error(whole, speech, listener):.3f} "
            f"({len(speech.samples) / speech.sample_rate:.1f} s; longest training clip {longest:.1f} s)"
        )


def error(text: str, speech: Speech, listener: recognizer.Recognizer) -> float:
    """Character error rate of what is heard of an English text."""
    samples = resample(speech.samples, speech.sample_rate, recognizer.SAMPLE_RATE)
    return recognizer.character_error(normalize(text, "en").text, listener.submit(samples).result())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", type=Path, required=True, help="folder of a voice that speaks English")
    parser.add_argument("--features", type=Path, required=True, help="what it was trained on (vectors of Resemblyzer)")
    parser.add_argument("--corpus", type=Path, required=True, help="the recordings that these were made from")
    arguments = parser.parse_args()
    voice, store = Synthesizer(arguments.voice), FeatureStore(arguments.features)
    with recognizer.Recognizer(1) as listener:
        crossing(voice, store, listener)
        cloning(voice, store, arguments.corpus)
        long_texts(voice, store, listener)


if __name__ == "__main__":
    main()
