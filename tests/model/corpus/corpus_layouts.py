"""Small corpora in the true layouts of the published ones, written by the test that reads them."""

from pathlib import Path

import numpy as np
import soundfile

RATES = {".mp3": 32000, ".opus": 48000}


def write_sound(path: Path, seconds: float = 1.5, rate: int = 16000, pitch: float = 150.0) -> Path:
    """Writes a voiced buzz in the format of the suffix."""
    rate = RATES.get(path.suffix, rate)
    time = np.arange(int(seconds * rate)) / rate
    samples = 0.3 * np.sin(2 * np.pi * pitch * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".opus":
        soundfile.write(path, samples, rate, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, samples, rate)
    return path


def write_text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def ljspeech(root: Path) -> dict[str, tuple[str, str, str]]:
    write_text(root / "metadata.csv", "LJ001-0001|Dr. No.|Doctor No.", "LJ001-0002|in being|in being")
    for name in ("LJ001-0001", "LJ001-0002"):
        write_sound(root / "wavs" / f"{name}.wav", rate=22050)
    return {"LJ001-0001": ("Doctor No.", "en", "speaker"), "LJ001-0002": ("in being", "en", "speaker")}


def vctk(root: Path) -> dict[str, tuple[str, str, str]]:
    write_text(root / "speaker-info.txt", "ID  AGE  GENDER  ACCENTS  REGION COMMENTS", "p225  23  F  English  Southern")
    write_text(root / "txt" / "p225" / "p225_001.txt", "Please call Stella.")
    write_text(root / "txt" / "s5" / "s5_002.txt", "Ask her to bring these things.")
    for microphone in ("mic1", "mic2"):
        write_sound(root / "wav48_silence_trimmed" / "p225" / f"p225_001_{microphone}.flac", rate=48000)
        write_sound(root / "wav48_silence_trimmed" / "s5" / f"s5_002_{microphone}.flac", rate=48000)
    return {
        "p225_001": ("Please call Stella.", "en", "p225"),
        "s5_002": ("Ask her to bring these things.", "en", "s5"),
    }


def libritts(root: Path) -> dict[str, tuple[str, str, str]]:
    chapter = root / "train-clean-100" / "103" / "1240"
    name = "103_1240_000000_000001"
    write_sound(chapter / f"{name}.wav", rate=24000)
    write_text(chapter / f"{name}.normalized.txt", "Chapter one. Missus Rachel.")
    write_text(chapter / f"{name}.original.txt", "CHAPTER I. MRS. RACHEL.")
    write_text(chapter / "103_1240.trans.tsv", f"{name}\tCHAPTER I. MRS. RACHEL.\tChapter one. Missus Rachel.")
    return {name: ("Chapter one. Missus Rachel.", "en", "103")}


def librispeech(root: Path) -> dict[str, tuple[str, str, str]]:
    chapter = root / "LibriSpeech" / "test-other" / "1688" / "142285"
    write_sound(chapter / "1688-142285-0000.flac")
    write_sound(chapter / "1688-142285-0001.flac")
    write_text(
        chapter / "1688-142285.trans.txt", "1688-142285-0000 THERE'S IRON THEY SAY", "1688-142285-0001 IN ALL OUR BLOOD"
    )
    return {
        "1688-142285-0000": ("there's iron they say", "en", "1688"),
        "1688-142285-0001": ("in all our blood", "en", "1688"),
    }


def common_voice(root: Path) -> dict[str, tuple[str, str, str]]:
    columns = "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant"
    header = "\t".join([*columns.split(), "locale", "segment"])
    client = "0f21a1ff" * 16
    rows = [
        [client, "common_voice_zh-CN_1.mp3", "a", '他说 "你好"。', "", "2", "0", "", "", "", "", "zh-CN", ""],
        [client, "common_voice_zh-CN_2.mp3", "b", "谢谢。", "", "2", "0", "", "", "", "", "zh-CN", ""],
    ]
    write_text(root / "validated.tsv", header, *("\t".join(row) for row in rows))
    write_text(root / "invalidated.tsv", header)
    for row in rows:
        write_sound(root / "clips" / row[1])
    return {Path(row[1]).stem: (row[3], "zh", client[:12]) for row in rows}


def aishell3(root: Path) -> dict[str, tuple[str, str, str]]:
    write_text(root / "spk-info.txt", "SSB0005\tB\tfemale\tnorth")
    write_text(root / "train" / "content.txt", "SSB00050001.wav\t广 guang3 州 zhou1 女 nv3 大 da4")
    write_text(root / "test" / "content.txt", "SSB00730005.wav\t花 huar1 儿 ％")
    write_sound(root / "train" / "wav" / "SSB0005" / "SSB00050001.wav", rate=44100)
    write_sound(root / "test" / "wav" / "SSB0073" / "SSB00730005.wav", rate=44100)
    return {"SSB00050001": ("广州女大", "zh", "SSB0005"), "SSB00730005": ("花儿％", "zh", "SSB0073")}


def table_csv(root: Path) -> dict[str, tuple[str, str, str]]:
    write_text(
        root / "metadata.csv", "audio,text,speaker,language", 'a/one.ogg,"Yes, indeed.",anna,en', "b.opus,Ja.,,de"
    )
    write_sound(root / "a" / "one.ogg")
    write_sound(root / "b.opus")
    return {"a-one": ("Yes, indeed.", "en", "anna"), "b": ("Ja.", "de", "speaker")}


def table_tsv(root: Path) -> dict[str, tuple[str, str, str]]:
    write_text(root / "metadata.tsv", "path\tsentence\tspeaker_id\tlocale", 'x.flac\tHe said "no".\t7\ten-GB')
    write_sound(root / "x.flac")
    return {"x": ('He said "no".', "en-gb", "7")}


def table_jsonl(root: Path) -> dict[str, tuple[str, str, str]]:
    write_text(
        root / "manifest.jsonl", '{"audio_filepath": "x.wav", "text": "سلام", "lang": "fa", "speaker": "shayan"}'
    )
    write_sound(root / "x.wav")
    return {"x": ("سلام", "fa", "shayan")}


def myxtts_v1(root: Path) -> dict[str, tuple[str, str, str]]:
    write_text(root / "metadata_train.csv", "p248_065_mic1|Scotland.|Scotland.", "LJ016-0244|who|who")
    write_text(root / "metadata_eval.csv", "mine1|Mine.|Mine.")
    for name in ("p248_065_mic1", "LJ016-0244", "mine1"):
        write_sound(root / "wavs" / f"{name}.wav", rate=48000)
    return {
        "p248_065_mic1": ("Scotland.", "en", "p248"),
        "LJ016-0244": ("who", "en", "LJ"),
        "mine1": ("Mine.", "en", "speaker"),
    }


def coqui(root: Path) -> dict[str, tuple[str, str, str]]:
    for name, clip in (("train", "a"), ("eval", "b")):
        write_text(root / f"metadata_{name}.csv", "audio_file|text|speaker_name", f"wavs/{clip}.wav|Text {clip}.|carl")
        write_sound(root / "wavs" / f"{clip}.wav")
    return {"wavs-a": ("Text a.", "en", "carl"), "wavs-b": ("Text b.", "en", "carl")}


def text_files(root: Path) -> dict[str, tuple[str, str, str]]:
    write_sound(root / "anna" / "01.wav")
    write_text(root / "anna" / "01.txt", "Good", "morning.")
    write_sound(root / "bert" / "wav" / "01.flac")
    write_text(root / "bert" / "txt" / "01.txt", "Good night.")
    return {"anna-01": ("Good morning.", "en", "anna"), "bert-01": ("Good night.", "en", "bert")}


def kaldi(root: Path) -> dict[str, tuple[str, str, str]]:
    write_text(root / "wav.scp", "anna-1 wav/a.wav", "bert-1 /data/elsewhere/wav/b.wav")
    write_text(root / "text", "anna-1 good morning", "bert-1 good night")
    write_text(root / "utt2spk", "anna-1 anna", "bert-1 bert")
    for name in "ab":
        write_sound(root / "wav" / f"{name}.wav")
    return {"anna-1": ("good morning", "en", "anna"), "bert-1": ("good night", "en", "bert")}


def festvox(root: Path) -> dict[str, tuple[str, str, str]]:
    lines = (
        '( arctic_a0001 "Author of the danger trail, Philip Steels, etc." )',
        '(arctic_a0002 "He said \\"no\\"." )',
    )
    write_text(root / "etc" / "txt.done.data", *lines)
    for name in ("arctic_a0001", "arctic_a0002"):
        write_sound(root / "wav" / f"{name}.wav")
    return {
        "arctic_a0001": ("Author of the danger trail, Philip Steels, etc.", "en", "speaker"),
        "arctic_a0002": ('He said "no".', "en", "speaker"),
    }


LAYOUTS = [
    ("ljspeech", ljspeech), ("vctk", vctk), ("libritts", libritts), ("libritts", librispeech),
    ("common_voice", common_voice), ("aishell3", aishell3), ("table", table_csv), ("table", table_tsv),
    ("table", table_jsonl), ("myxtts_v1", myxtts_v1), ("myxtts_v1", coqui),
    ("text_files", text_files), ("kaldi", kaldi), ("festvox", festvox),
]  # fmt: skip
