"""Code hashes of the data stages depend on the code that a stage runs, and on nothing else."""

from model.code_hash import relative_name, source_files
from model.config.data import CorpusConfig
from model.corpus.stage_code import STAGES, TRACKED_BY_DVC, stage_hashes, write_stage_hashes


def test_a_mixed_corpus_depends_on_the_readers_of_its_sources():
    def ingest(*formats: str) -> str:
        sources = [{"format": name, "path": name} for name in formats]
        return stage_hashes(CorpusConfig(format="mixed", sources=sources))["ingest"]

    assert ingest("ljspeech") != ingest("ljspeech", "vctk") == ingest("vctk", "ljspeech")


def test_each_stage_has_a_hash_of_its_own_in_a_file_of_its_own(tmp_path):
    config = CorpusConfig(format="ljspeech")
    written = write_stage_hashes(tmp_path, config)
    assert written == stage_hashes(config)
    assert {path.name: path.read_text().strip() for path in tmp_path.iterdir()} == written
    assert len(set(written.values())) == len(STAGES)


def test_ingest_depends_on_the_readers_that_a_corpus_needs():
    one, other = (stage_hashes(CorpusConfig(format=name)) for name in ("ljspeech", "vctk"))
    assert one["ingest"] != other["ingest"]
    assert (one["validate"], one["split"]) == (other["validate"], other["split"])


def test_ingest_of_recordings_does_not_depend_on_phonemes_or_settings():
    files = source_files("model.corpus.ingest", "model.corpus.readers.ljspeech", exclude=TRACKED_BY_DVC)
    names = {relative_name(path) for path in files}
    assert not [name for name in names if name.startswith(("model/config", "model/text/espeak", "model/features"))]
    assert "model/audio/io.py" in names
