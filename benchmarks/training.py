"""What each option of training costs and saves: `python -m benchmarks.training` runs and prints one table.

Every row is a fresh run of the same model on the same features, measured after `WARM_UP` steps (the whole first epoch
where graphs are compiled). On a GPU, `--gpu-seconds 60` trains `normal` and samples its utilisation every 100 ms:

    python -m benchmarks.training --features <store> --model-size normal --gpu-seconds 60
"""

import argparse
import logging
import subprocess
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.small_corpus import SETTINGS, small_features
from model.config import resolve
from model.training.history import read_history
from model.training.trainer import train

VARIANTS: dict[str, dict[str, Any]] = {
    "default settings": {},
    "without prefetch": {"buffer_size": 0},
    "float32": {"use_mixed_precision": False},
    "static shapes": {"enable_static_shapes": True, "num_shape_buckets": 2},
    "static shapes, compiled": {"enable_static_shapes": True, "num_shape_buckets": 2, "enable_compile": True},
    "gradient checkpointing": {"enable_gradient_checkpointing": True},
    "accumulation in 4 parts": {"gradient_accumulation_steps": 4},
    "adaptive loss weights": {"enable_adaptive_loss_weights": True},
}
COLUMNS = ("variant", "ms a step", "data wait", "frames/s", "shapes", "graphs", "graphs in the 2nd half")


def measure(features: Path, folder: Path, size: str, steps: int, options: dict[str, Any]) -> list[str]:
    """One row: the second half of a run, its first left to warm up."""
    half = steps // 2
    run = {"model_size": size, "training.max_steps": steps, "training.log_interval": half}
    run |= {"training.enable_evaluation": False, "training.checkpoint_interval": 10 * steps, "training.warmup_steps": 1}
    run |= {f"training.{key}": value for key, value in options.items()}
    train(resolve(None, None, {**SETTINGS, **run}).config, features, folder)
    first, second = (line for line in read_history(folder / "history.jsonl") if "train/mel" in line)
    graphs = [int(line.get("train/compiled_graphs", 0)) for line in (first, second)]
    return [
        f"{second['time/step_ms']:.0f}",
        f"{100 * second['time/data_share']:.2f} %",
        f"{second['train/frames_per_second']:.0f}",
        f"{second['train/distinct_shapes']:.0f}",
        str(graphs[1]),
        str(graphs[1] - graphs[0]),
    ]


def sample_gpu(seconds: int) -> list[int]:
    """Utilisation in percent, every 100 ms."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        samples = [int(process.stdout.readline()) for _ in range(10 * seconds)]
        process.terminate()
    return samples


def gpu_report(features: Path, folder: Path, size: str, seconds: int) -> str:
    """Mean and lowest utilisation over a minute of training, after a minute of warm-up, and its frames per second."""
    import threading
    import time

    options = {"training.device": "cuda", "training.enable_static_shapes": True, "training.buffer_size": 100}
    options |= {"training.num_workers": 4, "training.enable_evaluation": False, "training.log_interval": 50}
    config = resolve(None, None, {"model_size": size, **options}).config
    threading.Thread(target=train, args=(config, features, folder), daemon=True).start()
    time.sleep(60)
    samples = sample_gpu(seconds)
    speed = [line["train/frames_per_second"] for line in read_history(folder / "history.jsonl") if "train/mel" in line]
    return f"utilisation mean {fmean(samples):.1f} %, lowest {min(samples)} %; {speed[-1]:.0f} frames/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, help="feature store [default: a generated one of 28 sentences]")
    parser.add_argument("--model-size", default="tiny")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--gpu-seconds", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as place:
        features = arguments.features or small_features(Path(place))
        if arguments.gpu_seconds:
            if not torch.cuda.is_available():
                raise SystemExit("--gpu-seconds needs a GPU, and this machine has none")
            print(gpu_report(features, Path(place) / "gpu", arguments.model_size, arguments.gpu_seconds))
            return
        print(f"{arguments.model_size}, {torch.get_num_threads()} threads at the start, {arguments.steps} steps each\n")
        print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
        for number, (name, options) in enumerate(VARIANTS.items()):
            row = measure(features, Path(place) / str(number), arguments.model_size, arguments.steps, options)
            print(f"| {' | '.join([name, *row])} |", flush=True)


if __name__ == "__main__":
    main()
