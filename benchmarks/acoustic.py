"""Benchmarks the acoustic model against FastSpeech2Conformer of transformers, and the alignment search against numpy.

Both models have the same number of parameters (the width of the peer is chosen for it; heads and feed-forward ratio are
equal; it has half as many layers, because a Conformer layer is about twice as large), batch, lengths and threads.
Training is forward pass, losses, backward pass and optimizer step in float32. Our model learns its alignment in that
step; the peer receives durations. In synthesis both predict durations, which are then replaced by equal ones.

    pip install 'myxtts[benchmark]'
    python -m benchmarks.acoustic
    python -m benchmarks.acoustic --search-only
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from model.acoustic.alignment import IMPOSSIBLE, best_path
from model.acoustic.batch import Batch
from model.acoustic.model import AcousticModel, ModelDimensions
from model.config.resolution import resolve
from model.config.schema import Config
from model.text.symbols import NUM_STRESSES, NUM_SYMBOLS
from model.training.losses import loss_terms, loss_weights, weighted_sum

FRAME_SECONDS = 256 / 22050
SEARCHES = ((16, 64, 256), (16, 128, 640), (32, 200, 1000))


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def random_batch(clips: int, tokens: int, frames: int) -> Batch:
    """Returns random clips of equal length, so that padding favors neither model."""
    ids = torch.stack((torch.randint(1, 60, (clips, tokens)), torch.zeros(clips, tokens, dtype=torch.int64)), dim=2)
    return Batch(
        ids=ids,
        token_lengths=torch.full((clips,), tokens),
        mel=torch.randn(clips, frames, 80),
        mel_lengths=torch.full((clips,), frames),
        pitch=torch.randn(clips, frames),
        voiced=torch.ones(clips, frames, dtype=torch.bool),
        energy=torch.randn(clips, frames),
        speaker_vector=nn.functional.normalize(torch.randn(clips, 256), dim=1),
        speaker=torch.arange(clips) % 2,
        language=torch.zeros(clips, dtype=torch.int64),
        clip_ids=[str(i) for i in range(clips)],
        reference_mel=torch.randn(clips, 256, 80),
        reference_lengths=torch.full((clips,), 256),
        reference_clip=torch.arange(clips),
    )


def our_model(config: Config) -> AcousticModel:
    dimensions = ModelDimensions(
        num_symbols=NUM_SYMBOLS,
        num_stresses=NUM_STRESSES,
        num_languages=1,
        speaker_vector_dim=256,
        n_mels=80,
        mel_mean=0.0,
        mel_std=1.0,
    )
    return AcousticModel(config.model, dimensions)


def peer_model(config: Config, parameters: int) -> nn.Module:
    """Returns a FastSpeech2Conformer with approximately `parameters` parameters."""
    from transformers import FastSpeech2ConformerConfig, FastSpeech2ConformerModel

    ours = config.model

    def build(width: int) -> nn.Module:
        settings = FastSpeech2ConformerConfig(
            vocab_size=NUM_SYMBOLS,
            hidden_size=width,
            encoder_layers=max(1, ours.encoder_layers // 2),
            decoder_layers=max(1, ours.decoder_layers // 2),
            encoder_num_attention_heads=ours.num_heads,
            decoder_num_attention_heads=ours.num_heads,
            encoder_linear_units=width * ours.ffn_dim // ours.hidden_dim,
            decoder_linear_units=width * ours.ffn_dim // ours.hidden_dim,
            speaker_embed_dim=256,
        )
        return FastSpeech2ConformerModel(settings)

    step, counts = 2 * ours.num_heads, {}
    for width in range(8 * step, 1024, 2 * step):
        with torch.device("meta"):
            counts[width] = count_parameters(build(width))
        if counts[width] > parameters:
            break
    return build(min(counts, key=lambda width: abs(counts[width] - parameters)))


def our_step(model: AcousticModel, batch: Batch, config: Config) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        terms = loss_terms(model(batch), batch, config.loss)
        optimizer.zero_grad(set_to_none=True)
        weighted_sum(terms, loss_weights(config.loss, 1.0)).backward()
        optimizer.step()

    return step


def peer_step(model: nn.Module, batch: Batch) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    clips, tokens = batch.ids.shape[:2]
    durations = torch.full((clips, tokens), batch.mel.shape[1] // tokens)
    labels = {"pitch_labels": torch.randn(clips, tokens, 1), "energy_labels": torch.randn(clips, tokens, 1)}

    def step() -> None:
        output = model(
            batch.ids[..., 0],
            spectrogram_labels=batch.mel,
            duration_labels=durations,
            speaker_embedding=batch.speaker_vector,
            return_dict=True,
            **labels,
        )
        optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        optimizer.step()

    return step


def fixed_durations(model: nn.Module, frames: int, log: bool) -> None:
    """Replaces the output of the duration predictor after it has been computed."""
    value = float(np.log1p(frames)) if log else frames
    model.duration_predictor.register_forward_hook(lambda module, inputs, output: torch.full_like(output, value))


def alternate(one: Callable[[], None], other: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Returns the median seconds of both; they alternate, so that other load on the machine affects both equally."""
    one(), other()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, seconds in zip((one, other), times, strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def compare(size: str, clips: int, tokens: int, frames: int, repeats: int) -> dict[str, float]:
    """Compares training and synthesis of one model size with the peer."""
    config = resolve(None, None, {"model_size": size, "model.enable_gst": False}).config
    torch.manual_seed(0)
    ours = our_model(config)
    peer = peer_model(config, count_parameters(ours))
    batch, single = random_batch(clips, tokens, frames), random_batch(1, tokens, frames)
    training = alternate(our_step(ours.train(), batch, config), peer_step(peer.train(), batch), repeats)

    fixed_durations(ours.eval(), frames // tokens, log=True)
    fixed_durations(peer.eval(), frames // tokens, log=False)

    def synthesize() -> None:
        speech = ours.synthesize(single.ids, single.token_lengths, single.speaker_vector, single.language)
        assert speech.mel.shape[1] == frames // tokens * tokens

    @torch.no_grad()
    def synthesize_with_peer() -> None:
        output = peer(single.ids[..., 0], speaker_embedding=single.speaker_vector, return_dict=True)
        assert output.spectrogram.shape[1] == frames // tokens * tokens

    synthesis = alternate(synthesize, synthesize_with_peer, 3 * repeats)
    speech_seconds = frames // tokens * tokens * FRAME_SECONDS
    return {
        "parameters": count_parameters(ours),
        "peer_parameters": count_parameters(peer),
        "frames_per_second": clips * frames / training[0],
        "peer_frames_per_second": clips * frames / training[1],
        "training_ratio": training[1] / training[0],
        "real_time_factor": synthesis[0] / speech_seconds,
        "peer_real_time_factor": synthesis[1] / speech_seconds,
        "synthesis_ratio": synthesis[1] / synthesis[0],
    }


def numpy_best_path(log_emission: np.ndarray) -> np.ndarray:
    """Returns the durations (T,) of the monotonic alignment of one clip (S, T), vectorized over tokens."""
    frames, tokens = log_emission.shape
    score = np.full(tokens, -np.inf)
    score[0] = log_emission[0, 0]
    advanced = np.zeros((frames, tokens), dtype=bool)
    for s in range(1, frames):
        moved = np.concatenate(([-np.inf], score[:-1]))
        advanced[s] = moved > score
        score = np.maximum(moved, score) + log_emission[s]
    durations, t = np.zeros(tokens, dtype=np.int64), tokens - 1
    for s in range(frames - 1, -1, -1):
        durations[t] += 1
        t -= advanced[s, t]
    return durations


def search(clips: int, tokens: int, frames: int, repeats: int) -> dict[str, float]:
    """Compares the compiled search with numpy; both must give the same durations."""
    generator = torch.Generator().manual_seed(0)
    emission: Tensor = torch.randn(clips, frames, tokens, generator=generator).log_softmax(2).clamp(min=IMPOSSIBLE)
    lengths = torch.full((clips,), tokens), torch.full((clips,), frames)
    plain = emission.double().numpy()
    expected = np.stack([numpy_best_path(item) for item in plain])
    assert np.array_equal(best_path(emission, *lengths).numpy(), expected)
    ours, theirs = alternate(
        lambda: best_path(emission, *lengths), lambda: [numpy_best_path(item) for item in plain], repeats
    )
    return {"milliseconds": 1000 * ours, "numpy_milliseconds": 1000 * theirs, "ratio": theirs / ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=["tiny", "small", "normal"])
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--frames", type=int, default=288)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--search-only", action="store_true", help="Only the alignment search, without transformers.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lengths = (arguments.clips, arguments.tokens, arguments.frames)
    results = {f"search {shape}": search(*shape, arguments.repeats) for shape in SEARCHES}
    if not arguments.search_only:
        results |= {size: compare(size, *lengths, arguments.repeats) for size in arguments.sizes}
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    for name, values in results.items():
        print(name, *(f"{key} {value:,.4g}" for key, value in values.items()), sep="  ")


if __name__ == "__main__":
    main()
