"""Records of pushed corpora, in a folder and on S3."""

import json

import pytest

from components import dvc
from components.contracts import StepError
from components.data_versions import LATEST, DataRecords, DataVersion

VERSION = DataVersion(data_hash="0" * 32 + ".dir", clips=3, seconds=7.5, languages=("en", "fa"))
NEWER = DataVersion(data_hash="1" * 32 + ".dir", clips=4, seconds=9.5, languages=("fa",))


@pytest.fixture(params=["folder", "s3"])
def records(request, tmp_path) -> DataRecords:
    if request.param == "folder":
        return DataRecords(str(tmp_path))
    request.getfixturevalue("s3")
    return DataRecords("s3://speech/dvc")


def test_a_version_is_found_by_its_hash_and_as_the_newest_of_its_corpus(records):
    records.write(VERSION, latest_of="Käthe")
    records.write(NEWER)
    assert records.find(LATEST, "Käthe") == VERSION
    assert records.find(NEWER.data_hash, "Käthe") == NEWER
    records.write(NEWER, latest_of="Käthe")
    assert records.find(LATEST, "Käthe") == NEWER
    for data, said in ((LATEST, "no version of the corpus `other`"), ("2" * 32 + ".dir", "nothing of the data 222")):
        with pytest.raises(StepError, match=f"{said}.*myxtts corpus push"):
            records.find(data, "other")


def test_the_report_of_a_version_is_kept_beside_it(records, tmp_path):
    path = tmp_path / "there" / "report.html"
    assert not records.fetch_report(VERSION.data_hash, path)
    (tmp_path / "report.html").write_text("<p>گزارش</p>")
    records.write_report(VERSION.data_hash, tmp_path / "report.html")
    assert records.fetch_report(VERSION.data_hash, path)
    assert path.read_text() == "<p>گزارش</p>"


def test_a_corpus_is_described_by_the_speech_that_is_trained_on(tmp_path):
    clip = {"audio": "a.flac", "text": "a", "speaker": "s", "sample_rate": 1, "source_sample_rate": 1}
    spoken = [("fa", "train"), ("en", "train"), ("en", "test")]
    clips = [
        {**clip, "id": str(n), "seconds": 5.0, "language": language, "split": split}
        for n, (language, split) in enumerate(spoken)
    ]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(item) + "\n" for item in clips))
    found = DataVersion.of("h", tmp_path)
    assert (found.clips, found.seconds, found.languages) == (3, 10.0, ("en", "fa"))


def test_other_remotes_are_refused_with_those_that_can_be_used():
    with pytest.raises(StepError, match="only in a folder or on S3"):
        DataRecords("ssh://host/data").write(VERSION)


def test_the_remotes_own_endpoint_and_credentials_are_used(s3, tmp_path, monkeypatch):
    """As DVC uses them: those of .dvc/config.local, where the environment has none."""
    url = s3.url
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    remote = {"url": "s3://speech/dvc", "endpointurl": url, "region": "us-east-1"}
    dvc.write_config(tmp_path, {"core": {"remote": "storage"}, "'remote \"storage\"'": remote}, "config")
    own = {"access_key_id": "test", "secret_access_key": "test"}
    dvc.write_config(tmp_path, {"'remote \"storage\"'": own}, "config.local")
    options = dvc.s3_options(tmp_path)
    assert dict(options) == {
        "endpoint_url": url,
        "region_name": "us-east-1",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
    }
    records = DataRecords("s3://speech/dvc", options)
    records.write(VERSION)
    assert records.find(VERSION.data_hash, "any") == VERSION
