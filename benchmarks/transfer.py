"""Compares trainings from a base voice with trainings from scratch, on minutes to seconds of one reader's speech.

A base voice is made of generated speech and adapted to a corpus of one reader: to all of its training clips, and to
subsets of one minute and of fifteen seconds that are drawn several times. For comparison, the table has trainings from
scratch, the recordings and copy-synthesis. The recognizer transcribes every held-out recording, and texts that no
corpus here contains (`transfer_texts.txt`), on which voices are compared in pairs. The speaker encoder that measures
similarity is also part of the loss; the mel-cepstral distortion to the held-out recordings does not depend on it.
Intervals are of 95 %, by bootstrap over sentences.

Everything is kept in a folder and reused, so the table can be made in pieces, and an interrupted command resumes.
Trainings run in one process with the batches of two, which are equal; the time of a training on two cores is given as
half of its processor time.

    python -m benchmarks.transfer --folder /tmp/transfer --recordings ../shared/data/kathleen
    python -m benchmarks.transfer --folder /tmp/transfer --recordings ../shared/data/kathleen --rows minute --draws 1
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.generated_corpus import prepare
from components.base_voice import NONE
from model.audio.dtw import dtw_path
from model.audio.io import read_audio, resample
from model.audio.mel import MelExtractor
from model.audio.trimming import trim_and_normalize
from model.config import settings_hash
from model.config.data import PreprocessSettings
from model.config.resolution import base_layers, flatten, resolve
from model.config.training import TrainSettings
from model.config.vocoder import VocoderConfig
from model.corpus.manifest import Clip, read_manifest, stage_folder, write_manifest
from model.corpus.readers import survey
from model.corpus.split import split
from model.evaluation import recognizer
from model.evaluation.metrics import mel_cepstral_distortion, mel_cepstrum
from model.features.extract import build_features
from model.features.store import FeatureStore
from model.files import write_json
from model.speaker_encoder import Resemblyzer
from model.synthesis import Synthesizer
from model.text.normalize import normalize
from model.threads import single_threaded
from model.training.adaptation import describe_base
from model.training.trainer import run_fingerprint, train
from model.vocoder import build_vocoder
from model.voice_folder import DESCRIPTION
from pipelines.base_voices import base_settings

LANGUAGE, SIZE = "en", "tiny"
TEXTS = Path(__file__).with_name("transfer_texts.txt")
PROCESSES = 2
"""Number of training processes of a run on two cores. One process here computes the batches of all of them."""
RESAMPLES = 2000
"""Resamples of a bootstrap interval."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table.

    Attributes:
        name: Name for `--rows`.
        seconds: Training speech; 0 takes all of it.
        from_base: Whether the training starts from the base voice.
    """

    name: str
    seconds: float
    from_base: bool


ROWS = (
    Row(name="scratch", seconds=0, from_base=False),
    Row(name="all", seconds=0, from_base=True),
    Row(name="minute-scratch", seconds=60, from_base=False),
    Row(name="minute", seconds=60, from_base=True),
    Row(name="seconds-scratch", seconds=15, from_base=False),
    Row(name="seconds", seconds=15, from_base=True),
)


@dataclass(frozen=True, kw_only=True)
class Training:
    """A finished training.

    Attributes:
        voice: Folder of the voice.
        steps: Optimizer steps.
        seconds: Processor time of the training, over the number of processes.
    """

    voice: Path
    steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Character error rates, speaker similarities and distortions by sentence.

    Attributes:
        errors: Text -> character error rate of the recognizer.
        similarities: Text -> Resemblyzer cosine to the centroid of the reader's training clips.
        distortions: Held-out text -> mel-cepstral distortion to its recording in dB, aligned by dynamic time warping.
    """

    errors: dict[str, float]
    similarities: dict[str, float]
    distortions: dict[str, float]


NO_SCORES = Scores(errors={}, similarities={}, distortions={})


@dataclass(frozen=True, kw_only=True)
class Result:
    """Trainings of one row, and the means of their scores over the draws."""

    row: Row
    trainings: list[Training]
    held_out: Scores
    texts: Scores


@dataclass(kw_only=True)
class Experiment:
    """Corpora, trainings and scores below a folder; all are made when they are first needed, and then reused.

    Attributes:
        folder: Folder of everything that is made.
        recordings: Corpus of one reader, in any known layout.
        settings: Settings of the trainings by dotted key, over those of a run.
        base_settings: Settings of the base voice by dotted key, over those of `myxtts base make`.
        texts: Texts without recordings that are synthesized.
        given_base: Voice to start from instead of a base voice.
    """

    folder: Path
    recordings: Path
    settings: dict[str, Any]
    base_settings: dict[str, Any]
    texts: list[str]
    given_base: Path | None = None

    @cached_property
    def reader(self) -> Path:
        """Folder of the results for this corpus of recordings."""
        return self.folder / f"reader-{settings_hash(self._reader_settings)[:8]}"

    @cached_property
    def _reader_settings(self) -> dict[str, Any]:
        return flatten({"corpus": survey(self.recordings)})

    @cached_property
    def corpus(self) -> tuple[Path, FeatureStore]:
        """The whole corpus of the reader and its features."""
        return prepare(resolve(None, None, self._reader_settings).config, self.reader)

    @cached_property
    def base(self) -> Path:
        """Folder of the base voice."""
        if self.given_base:
            return self.given_base
        wanted = {**base_settings((LANGUAGE,), SIZE), "corpus.path": "", **self.base_settings}
        del wanted["registry.name"]
        corpus = {key: value for key, value in wanted.items() if key.startswith(("corpus.", "split."))}
        _, store = prepare(resolve(None, None, corpus).config, self.folder / "bases" / settings_hash(corpus)[:8])
        return self._train("base", store, training_settings(wanted)).voice

    def result(self, row: Row, draws: int) -> Result:
        """Trains the voices of a row, or reuses them, and scores them."""
        trainings, held_out, texts = [], [], []
        for draw in range(draws if row.seconds else 1):
            store = self._subset(row.seconds, draw) if row.seconds else self.corpus[1]
            base = self.base if row.from_base else None
            seconds = sum(store.clips[position].seconds for position in store.split("train"))
            name = f"{row.name}-{draw}"
            trainings.append(self._train(name, store, training_settings(self.settings, base, seconds), base))
            scores = self.score(trainings[-1].voice)
            held_out.append(scores[0])
            texts.append(scores[1])
        return Result(row=row, trainings=trainings, held_out=average(held_out), texts=average(texts))

    def _train(self, name: str, store: FeatureStore, settings: TrainSettings, base: Path | None = None) -> Training:
        identity = run_fingerprint(settings, store, describe_base(base, "")["weights_sha256"] if base else "")
        return train_once(self.folder / "trainings" / f"{name}-{identity[:8]}", store, settings, base)

    def _subset(self, seconds: float, draw: int) -> FeatureStore:
        """Returns the features of a random subset of the training clips, split as a separate corpus.

        Args:
            seconds: Duration of the subset.
            draw: Number of the draw, its seed.
        """
        folder = self.reader / "subsets" / f"{seconds:.0f}-{draw}"
        config = resolve(None, None, self._reader_settings).config
        if not (folder / "features").exists():
            source = self.corpus[0]
            clips = draw_clips([clip for clip in read_manifest(source) if clip.split == "train"], seconds, draw)
            with stage_folder(folder / "drawn") as drawn:
                for clip in clips:
                    (drawn / clip.audio).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / clip.audio, drawn / clip.audio)
                write_manifest(drawn, clips)
            split(folder / "drawn", folder / "corpus", config)
            build_features(folder / "corpus", folder / "features", PreprocessSettings.of(config))
        return FeatureStore(folder / "features")

    def recordings_scores(self, vocoded: bool) -> Scores:
        """Returns the scores of the held-out recordings, or of their copy-synthesis."""
        path = self._scores_folder / ("copy-synthesis.json" if vocoded else "recordings.json")
        if not path.is_file():
            folder, store = self.corpus
            vocoder, rate = build_vocoder(VocoderConfig(), store.audio, None), store.audio.sample_rate
            audio = {clip.id: folder / clip.audio for clip in read_manifest(folder)}
            speech = {}
            for position in self._held_out:
                clip = store.clips[position]
                recorded = trim_and_normalize(
                    read_audio(audio[clip.id], rate),
                    round(clip.trimmed * rate),
                    round((clip.trimmed + clip.seconds) * rate),
                    clip.gain,
                )
                speech[clip.text] = vocoder(np.array(store.clip(position).mel)) if vocoded else recorded
            write_json(path, asdict(self._scores(speech)))
        return Scores(**json.loads(path.read_text("utf-8")))

    def score(self, voice: Path) -> tuple[Scores, Scores]:
        """Returns the scores of a voice's first speaker on the held-out sentences, and on the further texts."""
        # The description changes with the weights, whose hash it has, and with the settings of the export.
        digest = hashlib.sha256((voice / DESCRIPTION).read_bytes()).hexdigest()
        path = self._scores_folder / f"{voice.parent.name}-{digest[:8]}.json"
        held_out = [self.corpus[1].clips[position].text for position in self._held_out]
        known = json.loads(path.read_text("utf-8")) if path.is_file() else asdict(NO_SCORES)
        missing = [text for text in (*held_out, *self.texts) if text not in known["errors"]]
        if missing:
            synthesizer = Synthesizer(voice)
            scores = self._scores({text: synthesizer.synthesize(text, LANGUAGE).samples for text in missing})
            for name, values in asdict(scores).items():
                known[name] |= values
            write_json(path, known)
        parts = [
            Scores(**{name: {text: values[text] for text in texts if text in values} for name, values in known.items()})
            for texts in (held_out, self.texts)
        ]
        return parts[0], parts[1]

    @property
    def _scores_folder(self) -> Path:
        """Folder of these kinds of scores under the current settings of the vocoder."""
        kinds = {"scores": [field.name for field in fields(Scores)]}
        return self.reader / "scores" / settings_hash(VocoderConfig(), kinds)[:8]

    @property
    def _held_out(self) -> list[int]:
        store = self.corpus[1]
        return store.split("validation") + store.split("test")

    @cached_property
    def _encoder(self) -> Resemblyzer:
        return Resemblyzer.load()

    def _scores(self, speech: dict[str, np.ndarray]) -> Scores:
        """Returns the scores of samples (N,) by their text."""
        store = self.corpus[1]
        rate, reader = store.audio.sample_rate, store.speaker_centroid(store.speakers[0])
        with single_threaded(), recognizer.Recognizer(PROCESSES) as background:
            transcripts = {
                text: background.submit(resample(samples, rate, recognizer.SAMPLE_RATE))
                for text, samples in speech.items()
            }
            vectors = self._encoder.embed_many(list(speech.values()), rate)
            errors = {
                text: recognizer.character_error(normalize(text, LANGUAGE).text, transcript.result())
                for text, transcript in transcripts.items()
            }
        recorded = {store.clips[position].text: np.array(store.clip(position).mel) for position in self._held_out}
        extractor = MelExtractor(store.audio)
        return Scores(
            errors=errors,
            similarities=dict(zip(speech, (vectors @ reader).tolist(), strict=True)),
            distortions={
                text: distortion(extractor.numpy(samples), recorded[text])
                for text, samples in speech.items()
                if text in recorded
            },
        )


def distortion(mel: np.ndarray, recorded: np.ndarray) -> float:
    """Returns the mel-cepstral distortion in dB of log-mels (S, M) and (R, M) that are aligned by their cepstra."""
    path = dtw_path(mel_cepstrum(mel), mel_cepstrum(recorded))
    value = mel_cepstral_distortion(mel, recorded, path).value
    assert value is not None  # it applies to every pair
    return value


def draw_clips(clips: list[Clip], seconds: float, draw: int) -> list[Clip]:
    """Returns random clips in their original order, as few as last `seconds` together."""
    chosen: set[str] = set()
    total = 0.0
    for number in np.random.default_rng([draw, round(seconds)]).permutation(len(clips)):
        if total >= seconds:
            break
        chosen.add(clips[number].id)
        total += clips[number].seconds
    return [clip for clip in clips if clip.id in chosen]


def train_once(folder: Path, store: FeatureStore, settings: TrainSettings, base: Path | None = None) -> Training:
    """Trains; a training that is finished in the folder is only exported again, with the settings of the export.

    The processor time of interrupted parts is added up.
    """
    record, spent = folder / "cost.json", folder / "spent.json"
    if record.is_file():
        train(settings, store, folder, base=base)
    else:
        before = json.loads(spent.read_text("utf-8")) if spent.is_file() else 0.0
        started = time.process_time()
        try:
            trained = train(settings, store, folder, base=base)
        finally:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(spent, before + time.process_time() - started)
        seconds = json.loads(spent.read_text("utf-8")) / PROCESSES
        write_json(record, {"voice": str(trained.voice), "steps": trained.steps, "seconds": seconds})
    values = json.loads(record.read_text("utf-8"))
    return Training(voice=Path(values["voice"]), steps=values["steps"], seconds=values["seconds"])


def training_settings(overrides: dict[str, Any], base: Path | None = None, seconds: float = 0.0) -> TrainSettings:
    """Returns the settings of a training as a run has them, with the batches of `PROCESSES` processes in one.

    Args:
        overrides: Settings by dotted key, which win over those that follow from the base.
        base: Folder of the base voice.
        seconds: Training speech.
    """
    derived = {}
    if base is not None:
        derived = base_layers(json.loads((base / DESCRIPTION).read_text("utf-8"))["config"], seconds)
    fixed = {"model_size": SIZE, "training.num_threads": 1}
    config = TrainSettings.of(resolve(None, None, {**fixed, **overrides}, derived).config)
    training = config.training
    batch = {
        "batch_size": training.batch_size * PROCESSES,
        "max_batch_frames": training.max_batch_frames * PROCESSES,
        "start_from": str(base or NONE),
    }
    return config.model_copy(update={"training": training.model_copy(update=batch)})


def average(scores: Sequence[Scores]) -> Scores:
    """Returns the mean over scores of the same texts."""
    first, *_ = plain = [asdict(item) for item in scores]
    return Scores(
        **{
            name: {text: float(np.mean([item[name][text] for item in plain])) for text in values}
            for name, values in first.items()
        }
    )


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean of values and the limits of its 95 % bootstrap interval."""
    array = np.asarray(values)
    picks = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.quantile(array[picks].mean(1), (0.025, 0.975))
    return float(array.mean()), float(low), float(high)


def show(values: Sequence[float], decimals: int = 3) -> str:
    """Returns the mean of values and its interval as text."""
    mean, low, high = interval(values)
    return f"{mean:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def differences(ours: dict[str, float], theirs: dict[str, float]) -> list[float]:
    """Returns the difference of each text."""
    return [value - theirs[text] for text, value in ours.items()]


def score_cells(held_out: Scores, copy: Scores, texts: Scores | None = None) -> list[str]:
    """Returns the cells of a row that hold scores; `-` where no further texts were synthesized."""
    further = [list(texts.errors.values()), list(texts.similarities.values())] if texts else [[], []]
    return [
        show(list(held_out.errors.values())),
        show(differences(held_out.errors, copy.errors)),
        show(list(held_out.similarities.values())),
        f"{np.mean(list(held_out.distortions.values())):.2f}",
        *(show(values) if values else "-" for values in further),
    ]


def cells(result: Result, copy: Scores) -> list[str]:
    """Returns the cells of a training's row of the table."""
    row, trainings = result.row, result.trainings
    return [
        f"{row.seconds:.0f} s, {len(trainings)} draws" if row.seconds else "all",
        "base" if row.from_base else "scratch",
        f"{trainings[0].steps}",
        f"{np.mean([training.seconds for training in trainings]):.0f}",
        *score_cells(result.held_out, copy, result.texts),
    ]


COLUMNS = (
    "speech",
    "start",
    "steps",
    "seconds on two cores",
    "CER held-out",
    "minus copy-synthesis",
    "cosine held-out",
    "MCD held-out",
    "CER further texts",
    "cosine further texts",
)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for line in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(line)} |", flush=True)


def assignment(text: str) -> tuple[str, Any]:
    """Returns key and value of `key=value`."""
    key, _, value = text.partition("=")
    return key, yaml.safe_load(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--recordings", type=Path, required=True, help="corpus of one English reader")
    parser.add_argument("--rows", nargs="*", default=[row.name for row in ROWS], choices=[row.name for row in ROWS])
    parser.add_argument("--draws", type=int, default=3, help="draws of each subset")
    parser.add_argument("--base", type=Path, help="voice to start from [default: made of generated speech]")
    parser.add_argument("--texts", type=int, help="further texts to synthesize [default: all]")
    parser.add_argument("--set", nargs="*", default=[], type=assignment, metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--base-set", nargs="*", default=[], type=assignment, metavar="KEY=VALUE")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    listed = TEXTS.read_text("utf-8").splitlines()
    experiment = Experiment(
        folder=arguments.folder.absolute(),
        recordings=arguments.recordings,
        settings=dict(arguments.settings),
        base_settings=dict(arguments.base_set),
        texts=listed[: len(listed) if arguments.texts is None else arguments.texts],
        given_base=arguments.base,
    )
    recordings, copy = experiment.recordings_scores(vocoded=False), experiment.recordings_scores(vocoded=True)
    rows = [row for row in ROWS if row.name in arguments.rows]
    lines = [
        ["recordings", *("-", "-", "-"), *score_cells(recordings, copy)],
        ["copy-synthesis", *("-", "-", "-"), *score_cells(copy, copy)],
    ]
    if any(row.from_base for row in rows):
        held_out, texts = experiment.score(experiment.base)
        lines.append(["none", "base", "0", "0", *score_cells(held_out, copy, texts)])
    results = [experiment.result(row, arguments.draws) for row in rows]
    print_table(COLUMNS, [*lines, *(cells(result, copy) for result in results)])
    print()
    pairs = [
        [
            f"{ours.row.name} - {theirs.row.name}",
            show(differences(ours.texts.errors, theirs.texts.errors)),
            show(differences(ours.texts.similarities, theirs.texts.similarities)),
        ]
        for number, ours in enumerate(results)
        for theirs in results[:number]
        if experiment.texts
    ]
    print_table(("difference on further texts", "CER", "cosine"), pairs)


if __name__ == "__main__":
    main()
