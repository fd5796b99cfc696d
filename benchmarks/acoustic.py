"""Speed of the acoustic model against transformers' FastSpeech2Conformer, and of the alignment search against numpy.

Both models get the same number of parameters (the peer's width is chosen for it; heads and feed-forward ratio are
equal, the layers are half as many, since a Conformer layer is about twice ours), the same batch, lengths and threads.
Training is forward, losses, backward and optimiser step in float32. Ours learns its alignment in that step; the peer is
given durations. In synthesis both predict durations, which are then overruled so that both speak equally long.

    pip install 'myxtts[benchmark]'
    python benchmarks/acoustic.py
    python benchmarks/acoustic.py --search-only
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


def parameters_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def random_batch(clips: int, tokens: int, frames: int) -> Batch:
    """Clips of equal length; a shared length favours neither side."""
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
    """FastSpeech2Conformer of nearly `parameters` parameters."""
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
            counts[width] = parameters_of(build(width))
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
    """Overrule what the duration predictor says, after it has computed it."""
    value = float(np.log1p(frames)) if log else frames
    model.duration_predictor.register_forward_hook(lambda module, inputs, output: torch.full_like(output, value))


def alternate(one: Callable[[], None], other: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Median seconds of each, taken in turns, so that other work on the machine burdens both alike."""
    one(), other()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, own in zip((one, other), times, strict=True):
            began = time.perf_counter()
            run()
            own.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def compare(size: str, clips: int, tokens: int, frames: int, repeats: int) -> dict[str, float]:
    """Training and synthesis of one size against the peer."""
    config = resolve(None, None, {"model_size": size, "model.enable_gst": False}).config
    torch.manual_seed(0)
    ours = our_model(config)
    peer = peer_model(config, parameters_of(ours))
    batch, single = random_batch(clips, tokens, frames), random_batch(1, tokens, frames)
    training = alternate(our_step(ours.train(), batch, config), peer_step(peer.train(), batch), repeats)

    fixed_durations(ours.eval(), frames // tokens, log=True)
    fixed_durations(peer.eval(), frames // tokens, log=False)

    def speak() -> None:
        speech = ours.synthesize(single.ids, single.token_lengths, single.speaker_vector, single.language)
        assert speech.mel.shape[1] == frames // tokens * tokens

    @torch.no_grad()
    def peer_speaks() -> None:
        output = peer(single.ids[..., 0], speaker_embedding=single.speaker_vector, return_dict=True)
        assert output.spectrogram.shape[1] == frames // tokens * tokens

    synthesis = alternate(speak, peer_speaks, 3 * repeats)
    spoken = frames // tokens * tokens * FRAME_SECONDS
    return {
        "parameters": parameters_of(ours),
        "peer_parameters": parameters_of(peer),
        "frames_per_second": clips * frames / training[0],
        "peer_frames_per_second": clips * frames / training[1],
        "training_ratio": training[1] / training[0],
        "real_time_factor": synthesis[0] / spoken,
        "peer_real_time_factor": synthesis[1] / spoken,
        "synthesis_ratio": synthesis[1] / synthesis[0],
    }


def numpy_best_path(log_emission: np.ndarray) -> np.ndarray:
    """Monotonic alignment search of one clip (S, T), a row of tokens at a time: what one writes without a compiler."""
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
    """The compiled search against numpy, whose results are the same."""
    generator = torch.Generator().manual_seed(0)
    emission: Tensor = torch.randn(clips, frames, tokens, generator=generator).log_softmax(2).clamp(min=IMPOSSIBLE)
    lengths = torch.full((clips,), tokens), torch.full((clips,), frames)
    plain = emission.double().numpy()
    wanted = np.stack([numpy_best_path(item) for item in plain])
    assert np.array_equal(best_path(emission, *lengths).numpy(), wanted)
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
    parser.add_argument("--search-only", action="store_true", help="Only the alignment search; needs no transformers.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lengths = (arguments.clips, arguments.tokens, arguments.frames)
    found = {f"search {shape}": search(*shape, arguments.repeats) for shape in SEARCHES}
    if not arguments.search_only:
        found |= {size: compare(size, *lengths, arguments.repeats) for size in arguments.sizes}
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for name, values in found.items():
        print(name, *(f"{key} {value:,.4g}" for key, value in values.items()), sep="  ")


if __name__ == "__main__":
    main()
