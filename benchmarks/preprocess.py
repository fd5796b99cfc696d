"""Preprocessing: hours of speech per hour, the share of each feature, memory and time up to hours, and the start-up.

    python benchmarks/preprocess.py speed                       against a plain librosa + pyin script
    python benchmarks/preprocess.py pitch --recordings FOLDER    agreement with librosa.pyin on recorded speech
    python benchmarks/preprocess.py scale --hours 1 --hours 10   memory and time while the corpus grows
    python benchmarks/preprocess.py start --clips 100000         opening and bucketing a large index

Speech is spoken by espeak-ng unless recordings are given. `--json` writes the figures for programs.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import soundfile

from model.audio.io import read_audio
from model.audio.mel import MelExtractor, frame_energy
from model.audio.pitch import track_pitch
from model.audio.trimming import speech_bounds
from model.config.schema import Config
from model.corpus.manifest import Clip, write_manifest
from model.text.encode import encode
from model.text.espeak import speak

RATE = 22050
TEXTS = (Path(__file__).parents[1] / "model/corpus/sentences_en.txt").read_text("utf-8").splitlines()[:40]
CONFIG = Config()


def spoken() -> list[tuple[str, np.ndarray]]:
    """(text, samples) of some generated sentences at 22.05 kHz."""
    sounds = []
    for text in TEXTS:
        samples, rate, _ = speak(text, "en")
        sounds.append(
            (text, samples if rate == RATE else np.interp(_times(samples, rate), _range(samples, rate), samples))
        )
    return sounds


def write_corpus(folder: Path, hours: float) -> int:
    """So many hours of clips, each a little louder or quieter than the others: no two files are the same."""
    (folder / "audio").mkdir(parents=True)
    sounds, clips, seconds = spoken(), [], 0.0
    while seconds < 3600 * hours:
        number = len(clips)
        text, samples = sounds[number % len(sounds)]
        name = f"audio/{number:06d}.wav"
        soundfile.write(folder / name, samples * (0.5 + 0.5 * ((number * 0.6180339887) % 1)), RATE, subtype="PCM_16")
        length, split = len(samples) / RATE, "train" if number % 20 else "validation"
        clips.append(
            Clip(
                id=f"{number:06d}",
                audio=name,
                text=text,
                language="en",
                speaker=f"s{number % 10}",
                seconds=length,
                sample_rate=RATE,
                source_sample_rate=RATE,
                split=split,
            )
        )
        seconds += length
    write_manifest(folder, clips)
    return len(clips)


@click.group()
def main() -> None:
    """Benchmarks of preprocessing."""


@main.command()
@click.option("--recordings", type=click.Path(path_type=Path, exists=True), help="Folder of audio files.")
@click.option("--seconds", default=120.0, show_default=True, help="Speech to work on.")
@click.option("--json", "as_json", is_flag=True)
def speed(recordings: Path | None, seconds: float, as_json: bool) -> None:
    """One process of ours, feature by feature, and a plain librosa + pyin script on the same clips."""
    import librosa
    import torch

    from model.speaker_encoder import Resemblyzer

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        files = _files(recordings, Path(scratch), seconds)
        mel, encoder, shares = MelExtractor(CONFIG.audio), Resemblyzer.load(), {}
        mel.numpy(np.zeros(RATE, np.float32))
        encode(TEXTS[0], "en")

        def timed(name: str, function: Callable, *arguments):
            began = time.perf_counter()
            result = function(*arguments)
            shares[name] = shares.get(name, 0.0) + time.perf_counter() - began
            return result

        clips, total = [], 0.0
        for number, path in enumerate(files):
            samples = timed("reading", read_audio, path, RATE)
            begin, end = timed("trimming", speech_bounds, samples, RATE, 40.0, 0.08)
            clips.append(samples[begin:end])
            total += len(samples) / RATE
            spectrogram = timed("mel", mel.numpy, samples[begin:end])
            timed("energy", frame_energy, spectrogram)
            timed("pitch", track_pitch, samples[begin:end], CONFIG.audio, CONFIG.features)
            timed("text", encode, TEXTS[number % len(TEXTS)], "en")
        for start in range(0, len(clips), 16):
            timed("speaker vectors", encoder.embed_many, clips[start : start + 16], RATE)
        plain_files = files[: max(2, len(files) // 4)]
        plain_script(plain_files[:1])  # numba compiles
        began = time.perf_counter()
        plain_seconds = plain_script(plain_files)
        plain = time.perf_counter() - began
        began = time.perf_counter()
        for path in plain_files:
            librosa.pyin(read_audio(path, RATE), fmin=60, fmax=500, sr=RATE, hop_length=256)
        pyin = time.perf_counter() - began
    without = sum(value for name, value in shares.items() if name != "speaker vectors")
    ours, theirs = total / without, plain_seconds / plain
    figures = {
        "speech_seconds": round(total, 1),
        "x_real_time": {name: round(total / value) for name, value in shares.items()},
        "share": {name: round(value / sum(shares.values()), 3) for name, value in shares.items()},
        "all_but_speaker_vectors_x_real_time": round(ours, 1),
        "everything_x_real_time": round(total / sum(shares.values()), 1),
        "plain_librosa_pyin_x_real_time": round(theirs, 2),
        "faster_than_plain": round(ours / theirs, 1),
        "pitch_faster_than_pyin": round((total / shares["pitch"]) / (plain_seconds / pyin), 1),
    }
    _tell(figures, as_json)


def plain_script(files: list[Path]) -> float:
    """What a tutorial does for the same features: load, mel, energy, pyin, text; returns the seconds of speech."""
    import librosa

    seconds = 0.0
    for number, path in enumerate(files):
        samples, _ = librosa.load(path, sr=RATE)
        samples, _ = librosa.effects.trim(samples, top_db=40)
        seconds += librosa.get_duration(path=path)
        mel = librosa.feature.melspectrogram(
            y=samples, sr=RATE, n_fft=1024, hop_length=256, n_mels=80, fmax=8000, power=1
        )
        np.log(np.maximum(mel, 1e-5))
        librosa.feature.rms(y=samples, frame_length=1024, hop_length=256)
        librosa.pyin(samples, fmin=60, fmax=500, sr=RATE, hop_length=256)
        encode(TEXTS[number % len(TEXTS)], "en")
    return seconds


@main.command()
@click.option("--recordings", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--seconds", default=120.0, show_default=True, help="Speech to compare on.")
@click.option("--json", "as_json", is_flag=True)
def pitch(recordings: Path, seconds: float, as_json: bool) -> None:
    """Our tracker beside librosa.pyin: agreement frame by frame and speed."""
    with tempfile.TemporaryDirectory() as scratch:
        files = _files(recordings, Path(scratch), seconds)
        tracks: dict[str, list[np.ndarray]] = {"ours": [], "pyin": [], "pyin, 2048": []}
        times, total = [0.0, 0.0], 0.0
        for number, path in enumerate([files[0], *files]):
            samples = read_audio(path, RATE)
            began = time.perf_counter()
            ours = track_pitch(samples, CONFIG.audio, CONFIG.features)
            middle = time.perf_counter()
            theirs = _pyin(samples, 1024)
            if number == 0:
                continue  # numba compiles
            times = [times[0] + middle - began, times[1] + time.perf_counter() - middle]
            total += len(samples) / RATE
            found = (ours, theirs, _pyin(samples, 2048))
            for track, values in zip(tracks.values(), found, strict=True):
                track.append(values[: min(map(len, found))])
    joined = {name: np.concatenate(track) for name, track in tracks.items()}
    figures = {
        "files": len(files),
        "seconds": round(total, 1),
        "ours_and_pyin": _agreement(joined["ours"], joined["pyin"]),
        "pyin_and_itself_with_frames_of_2048": _agreement(joined["pyin"], joined["pyin, 2048"]),
        "x_real_time": round(total / times[0], 1),
        "pyin_x_real_time": round(total / times[1], 2),
        "faster": round(times[1] / times[0], 1),
    }
    _tell(figures, as_json)


@main.command()
@click.option("--hours", type=float, multiple=True, default=(0.2, 1.0), show_default=True)
@click.option("--workers", default=0, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work [default: a temporary folder].")
@click.option("--json", "as_json", is_flag=True)
def scale(hours: tuple[float, ...], workers: int, folder: Path | None, as_json: bool) -> None:
    """Build the features of generated corpora of several sizes, everything included; memory of the largest process.

    What else the machine does lengthens the seconds, but hardly the processor's: by these the growth is judged.
    """
    figures = []
    for amount in hours:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            clips = write_corpus(Path(scratch) / "corpus", amount)
            command = [sys.executable, __file__, "build", f"{scratch}/corpus", f"{scratch}/store", str(workers)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            figures.append({"hours": amount, "clips": clips, **json.loads(done.stdout.splitlines()[-1])})
            click.echo(json.dumps(figures[-1]), err=True)
    _tell({"runs": figures}, as_json)


@main.command(hidden=True)
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("workers", type=int)
def build(corpus: Path, store: Path, workers: int) -> None:
    """What `scale` measures, in a process of its own."""
    from model.features.extract import build_features

    before, used = _memory(), _processor_seconds()
    began = time.perf_counter()
    index = build_features(corpus, store, CONFIG, workers=workers)
    seconds, used = time.perf_counter() - began, _processor_seconds() - used
    again = time.perf_counter()
    build_features(corpus, store, CONFIG, workers=workers)
    figures = {
        "seconds": round(seconds, 1),
        "x_real_time": round(index.clips.seconds / seconds, 1),
        "processor_seconds": round(used, 1),
        "processor_milliseconds_a_clip": round(1000 * used / len(index.clips), 2),
        "nothing_changed_seconds": round(time.perf_counter() - again, 2),
        "peak_megabytes_before": before,
        "peak_megabytes": _memory(),
        "shards": len(index.shards),
    }
    click.echo(json.dumps(figures))


@main.command()
@click.option("--clips", type=int, multiple=True, default=(1000, 10_000, 100_000), show_default=True)
@click.option("--json", "as_json", is_flag=True)
def start(clips: tuple[int, ...], as_json: bool) -> None:
    """Open a store and draw the first batches' order of an epoch."""
    from model.features.index import FeatureIndex
    from model.features.sampling import BatchSampler

    figures = []
    for count in clips:
        with tempfile.TemporaryDirectory() as scratch:
            large_index(Path(scratch), count)
            size = sum(path.stat().st_size for path in Path(scratch).iterdir())
            began = time.perf_counter()
            index = FeatureIndex.read(Path(scratch))
            opened = time.perf_counter()
            sampler = BatchSampler(index.clips.rows["frames"], 32, seed=1)
            next(sampler)
            bucketed = time.perf_counter()
        figures.append(
            {
                "clips": count,
                "index_megabytes": round(size / 2**20, 1),
                "open_seconds": round(opened - began, 3),
                "bucket_seconds": round(bucketed - opened, 3),
            }
        )
    _tell({"runs": figures}, as_json)


def large_index(folder: Path, count: int) -> None:
    """An index of so many clips without their shards: what a loader reads at its start."""
    from model.audio.mel import extractor_hash
    from model.features.index import CLIPS, NAMES, ROW, ClipTable, FeatureIndex, save_file
    from model.features.statistics import Statistics
    from model.text.symbols import symbols_hash

    generator = np.random.default_rng(0)
    rows = np.zeros(count, ROW)
    rows["frames"], rows["tokens"] = generator.integers(80, 1200, count), generator.integers(10, 200, count)
    rows["samples"], rows["gain"] = rows["frames"] * 256, 1.0
    rows["digest"] = [f"{number:032x}".encode() for number in range(count)]
    texts = [item for number in range(count) for item in (f"clip-{number}".encode(), TEXTS[number % 40].encode())]
    rows["id_end"], rows["text_end"] = np.cumsum([len(text) for text in texts]).reshape(-1, 2).T
    names = b"".join(texts)
    checksums = {NAMES: save_file(folder, NAMES, names), CLIPS: save_file(folder, CLIPS, rows)}
    FeatureIndex(
        extractor_hash=extractor_hash(CONFIG.audio),
        symbols_hash=symbols_hash(),
        audio=CONFIG.audio,
        features=CONFIG.features,
        speakers=["one"],
        languages=["en"],
        statistics=Statistics(
            mel_mean=-5.0, mel_std=2.0, energy_mean=-4.0, energy_std=1.0, log_f0={"one": (5.0, 0.2)}, speakers={}
        ),
        unknown_symbols={},
        shards=[],
        checksums=checksums,
        clips=ClipTable(rows, names, speakers=["one"], languages=["en"], sample_rate=RATE),
    ).write(folder)


def _pyin(samples: np.ndarray, frame: int) -> np.ndarray:
    """Hz at the centres of the mel frames (half a hop later than librosa's), 0 where unvoiced."""
    import librosa

    pitch, voiced, _ = librosa.pyin(samples[128:], fmin=60, fmax=500, sr=RATE, frame_length=frame, hop_length=256)
    return np.where(voiced, pitch, 0.0)


def _agreement(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    both = (a > 0) & (b > 0)
    cents = 1200 * np.abs(np.log2(a[both] / b[both]))
    return {
        "voicing": round(float(((a > 0) == (b > 0)).mean()), 3),
        "within_half_a_semitone": round(float((cents <= 50).mean()), 3),
        "within_a_semitone": round(float((cents <= 100).mean()), 3),
        "no_octave_error": round(float((cents <= 600).mean()), 3),
        "median_cents": round(float(np.median(cents)), 1),
    }


def _files(recordings: Path | None, scratch: Path, seconds: float) -> list[Path]:
    """Audio files, spread over the folder, that together last about so long."""
    if recordings is None:
        write_corpus(scratch / "corpus", seconds / 3600)
        return sorted((scratch / "corpus" / "audio").iterdir())
    found = sorted(path for path in recordings.rglob("*") if path.suffix in (".wav", ".flac"))
    chosen, total = [], 0.0
    for path in _spread(found):
        chosen.append(path)
        total += soundfile.info(path).duration
        if total >= seconds:
            break
    return chosen


def _spread(items: list[Path]) -> Iterator[Path]:
    for number in np.random.default_rng(0).permutation(len(items)):
        yield items[number]


def _range(samples: np.ndarray, rate: int) -> np.ndarray:
    return np.arange(len(samples)) / rate


def _times(samples: np.ndarray, rate: int) -> np.ndarray:
    return np.arange(int(len(samples) * RATE / rate)) / RATE


def _processor_seconds() -> float:
    """That this process and the children that have ended have used."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _memory() -> int:
    """Megabytes that this process and its largest child have held at most."""
    own, child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(max(own, child) / 1024)


def _tell(figures: dict, as_json: bool) -> None:
    click.echo(json.dumps(figures, indent=None if as_json else 1))


if __name__ == "__main__":
    main()
