"""`myxtts evaluate` on a voice that was hardly trained."""

import json
from collections import Counter

import pytest

COMMON = (
    "--max-clips",
    "1",
    "--set",
    "evaluation.max_training_clips=2",
    "--set",
    "evaluation.texts=2",
    "--recognizer",
    "none",
)


@pytest.fixture
def evaluate(myxtts, untrained_voice, generated_features, generated_corpus, tmp_path):
    def run(*arguments: str) -> tuple[int, str, str]:
        places = ("--model", untrained_voice, "--features", generated_features, "--corpus", generated_corpus)
        return myxtts("evaluate", *places, "--output", tmp_path / "evaluation", *COMMON, *arguments)

    return run


def test_a_person_gets_a_table_of_both_parts_and_the_page(evaluate, tmp_path):
    status, said, _ = evaluate()
    assert status == 0
    written = json.loads((tmp_path / "evaluation" / "metrics.json").read_text("utf-8"))
    tables = dict(zip(("unseen", "training"), said.split("training ", 1), strict=True))
    for part, table in tables.items():
        row = next(line for line in table.splitlines() if line.startswith("Mel-cepstral distortion"))
        values = written[part]["mel_cepstral_distortion"]
        shown = [f"{values[kind]['value']:.2f}" for kind in ("copy_synthesis", "synthesised")]
        assert row.split()[-2:] == shown  # nothing is measured of the recording against itself
    assert "Character error above the recordings' does not apply: no recognizer" in said
    assert said.endswith(f"report: {tmp_path / 'evaluation' / 'report.html'}\n")
    assert (tmp_path / "evaluation" / "report.html").is_file()


def test_a_program_gets_what_is_in_the_file(evaluate, tmp_path):
    status, said, _ = evaluate("--json")
    assert status == 0
    written = json.loads((tmp_path / "evaluation" / "metrics.json").read_text("utf-8"))
    parts = Counter(clip["part"] for clip in written.pop("clips"))
    assert parts == {"unseen": 1, "training": 2}
    assert json.loads(said) == written
