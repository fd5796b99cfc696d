"""Settings shared by all tests: one thread per process, no telemetry, real recordings where they are at hand."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DVC_NO_ANALYTICS="1", MPLBACKEND="Agg")

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of recorded corpora (`kathleen`, `ljspeech`, ...); the test is skipped where there is none."""
    folder = Path(os.environ.get("MYXTTS_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no recorded speech: {folder} is missing and MYXTTS_REAL_DATA is not set")
    return folder


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
