"""Settings and fixtures shared by all tests: one thread per process, no telemetry, small corpora, an empty state."""

import os
import shutil
import signal
from typing import TYPE_CHECKING

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DVC_NO_ANALYTICS="1", MPLBACKEND="Agg")

from pathlib import Path  # noqa: E402 - after the variables that libraries read when they are loaded

import pytest  # noqa: E402
import torch  # noqa: E402
from slow_part import part_of, read_seconds  # noqa: E402
from small_speech import LOUDNESS, surround_corpus  # noqa: E402

if TYPE_CHECKING:
    from components.state import State

torch.set_num_threads(1)

LONG_FILES = Path(__file__).parent / "pipelines"
"""Folder of the tests that take longest."""
LONGEST_FILE = Path(__file__).parent / "test_docs.py"
"""Its slow tests take as long as all others together."""

# A suite started in the background of a script inherits an ignored SIGINT, and would hand it on to every process that
# a test interrupts. A handler of this process is the default action again in a new program.
signal.signal(signal.SIGINT, signal.default_int_handler)


def commit_hash(text: str) -> str:
    """Returns the hash of a commit, which is hexadecimal."""
    int(text, 16)
    return text


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--part",
        metavar="COMMIT",
        type=commit_hash,
        help="run the tests of every commit and one part of the other selected ones, by the commit's hash",
    )


@pytest.hookimpl(trylast=True)  # after `-m` and `-k`
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if commit := config.getoption("part"):
        chosen = set(part_of([item.nodeid for item in items], commit, read_seconds()))
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in chosen])
        items[:] = [item for item in items if item.nodeid in chosen]
    # The longest come first, so that both processes of `make test` and `make test-slow` end at about the same time.
    items.sort(key=lambda item: (item.path != LONGEST_FILE, LONG_FILES not in item.path.parents))


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    if commit := config.getoption("part"):
        return [f"the part of the selected tests that belongs to commit {commit}:", *(item.nodeid for item in items)]
    return []


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of recorded corpora (`kathleen`, `ljspeech`, ...); the test is skipped where there is none."""
    folder = Path(os.environ.get("MYXTTS_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no recorded speech: {folder} is missing and MYXTTS_REAL_DATA is not set")
    return folder


@pytest.fixture(scope="session")
def small_settings() -> dict:
    """Settings (dotted keys) of a corpus and a model that are small enough for tests."""
    return {
        "model_size": "xtiny",
        "corpus.engine": "espeak",
        "corpus.generated_voices": {"en": 1, "fa": 1},
        "corpus.sentences_per_voice": 14,
        "split.min_held_out": 3,
        "features.target_loudness": LOUDNESS,
        "training.evaluation_interval": 10,
        "training.checkpoint_interval": 5,
        "training.log_interval": 5,
        "training.warmup_steps": 5,
        "training.max_steps": 20,
        "vocoder.griffin_lim_iterations": 4,
    }


@pytest.fixture(scope="session")
def generated_corpus(tmp_path_factory, small_settings) -> Path:
    """A generated corpus with its splits: 14 sentences each of an English and a Persian voice.

    Recordings have silence around the speech and uneven levels; the known times of the phones refer to these
    recordings.
    """
    from model.config.resolution import resolve
    from model.corpus.ingest import ingest
    from model.corpus.split import split
    from model.corpus.validate import validate

    config = resolve(None, None, small_settings).config
    folder = tmp_path_factory.mktemp("data")
    ingest(config, folder / "ingested")
    surround_corpus(folder / "ingested")
    validate(folder / "ingested", folder / "validated", config)
    split(folder / "validated", folder / "corpus", config)
    return folder / "corpus"


@pytest.fixture(scope="session")
def generated_features(tmp_path_factory, generated_corpus, small_settings) -> Path:
    """The feature store of the small corpus."""
    from model.config.resolution import resolve
    from model.features.extract import build_features

    folder = tmp_path_factory.mktemp("features") / "features"
    build_features(generated_corpus, folder, resolve(None, None, small_settings).config)
    return folder


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A state folder with its MLflow database, which takes seconds to make."""
    from components import tracking
    from components.state import State

    state = State(tmp_path_factory.mktemp("template"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.initialize(state)
    return state.root


@pytest.fixture
def state(tmp_path, empty_database, monkeypatch) -> "State":
    """A state folder of this test alone, found through the environment, with an empty MLflow database."""
    from components.state import State

    root = tmp_path / "state"
    root.mkdir()
    for name in ("mlflow.db", "mlflow.ready"):
        shutil.copyfile(empty_database / name, root / name)
    monkeypatch.setenv("MYXTTS_STATE", str(root))
    for name in ("MLFLOW_TRACKING_URI", "KUBERNETES_SERVICE_HOST", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return State(root).prepare()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
