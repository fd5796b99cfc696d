"""Benchmarks the inference speed of vocoders: neural ones against their plain form and against other packages.

Three implementations with the same weights vocode the same mel: `NeuralVocoder` (folded weights and fast layers; also
in bfloat16), the plain form (weight norm computed in every pass, one-dimensional convolutions, float32), and the peer,
of the same dimensions: `SpeechT5HifiGan` or `UnivNetModel` of transformers (there is none for v3), or the official
`vocos` for `full`, where it is installed. They alternate, and the fastest pass of each counts, because other load on
the machine only adds time. One thread is timed by its processor time, several by the clock. Figures are seconds of
speech per second. The weights are random; the largest difference of samples is printed with their level.
`griffin_lim-random` and `griffin_lim-continued` are Griffin-Lim with 60 and 8 iterations; the small sizes of Vocos end
with their refinement iterations.

With `--training`, one step on 8 segments of 32 frames is timed instead, before the discriminators join and with them.

    pip install 'myxtts[benchmark]'
    python -m benchmarks.vocoder --threads 1 2
    python -m benchmarks.vocoder --training --sizes hifigan-v2 vocos-tiny-2 vocos-full
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from model.audio import SILENCE
from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.threads import computes_in_bfloat16
from model.vocoder import ARCHITECTURES, NeuralVocoder, build_vocoder
from model.vocoder.architectures import build_generator
from model.vocoder.hifigan import HifiGan
from model.vocoder.layers import Generator, SameConv1d
from model.vocoder.official import VocoderWeights
from model.vocoder.univnet import TAPS, UnivNet
from model.vocoder.vocos import Vocos, VocosSize
from model.vocoder.weights import State, fold_norms, official_state
from model.vocoder_training.adversarial import AdversarialStep
from model.vocoder_training.state import TrainingPlan, VocoderTrainingState

SIZES = (
    *("hifigan-v1", "hifigan-v2", "hifigan-v3", "univnet-c16"),
    *("vocos-full", "vocos-small-2", "vocos-tiny-0", "vocos-tiny-1", "vocos-tiny-2", "vocos-tiny-4"),
    *("griffin_lim-random", "griffin_lim-continued"),
)
BATCH, SEGMENT = 8, 32
"""Segments of a training step, and their frames."""
ITERATIONS = {"random": 60, "continued": 8}
AUDIO = AudioConfig()
MEL_LEVEL = 5.0
LEVEL = 0.3
"""Standard deviation of the samples before the last tanh."""
UNIVNET_NAMES = {
    "res_stack.": "resblocks.",
    "input_conv.0.": "input_conv.",
    "residual_convs.": "resblocks.",
    ".1.weight": ".conv1.weight",
    ".1.bias": ".conv1.bias",
    ".3.weight": ".conv2.weight",
    ".3.bias": ".conv2.bias",
    "convt_pre.conv1.": "convt_pre.",
    "conv_post.conv1.": "conv_post.",
}
"""Substring of our layer names -> that of transformers, replaced in this order."""


def random_mel(frames: int) -> np.ndarray:
    """Returns a random log-mel (S, M) with the mean and deviation of speech."""
    return np.random.default_rng(0).normal(-MEL_LEVEL, 2.0, (frames, AUDIO.n_mels)).astype(np.float32)


def random_generator(kind: str, variant: str, mel: Tensor) -> Generator:
    """Returns a generator whose random weights keep the level of the signal, so that rounding errors stay small."""
    torch.manual_seed(0)
    generator = build_generator(kind, variant, AUDIO).eval()
    if isinstance(generator, Vocos):  # its layer norms keep the level
        return generator
    assert isinstance(generator, HifiGan | UnivNet)
    last = generator.conv_post if isinstance(generator, HifiGan) else generator.conv_post[1]
    assert isinstance(last, SameConv1d)
    with torch.no_grad():
        for name, layer in generator.named_modules():
            if parametrize.is_parametrized(layer, "weight"):
                std = layer.weight[0].numel() ** -0.5
                if name.endswith("kernel_conv"):  # its output is used as weights
                    std *= (TAPS * generator.size.channels) ** -0.5
                elif layer.in_channels == AUDIO.n_mels:
                    std /= MEL_LEVEL
                layer.weight = torch.randn_like(layer.weight) * std
        levels: list[float] = []
        hook = last.register_forward_hook(lambda module, inputs, output: levels.append(float(output.std())))
        generator(mel)
        hook.remove()
        last.weight = last.weight * (LEVEL / levels[0])
    return generator


def peer_of(kind: str, variant: str, folded: State) -> Callable[[Tensor, Tensor | None], Tensor] | None:
    """Returns the model of another package with the same dimensions and weights: mel (1, M, S) and noise to (1, N).

    It is None where there is none.
    """
    size = ARCHITECTURES[kind].variants[variant]
    if kind == "vocos":
        return official_vocos(size, folded) if size.predicts_phases else None
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig, UnivNetConfig, UnivNetModel

    if kind == "univnet":
        repeats = len(size.strides)
        settings = UnivNetConfig(
            model_hidden_channels=size.channels,
            num_mel_bins=AUDIO.n_mels,
            resblock_stride_sizes=list(size.strides),
            resblock_dilation_sizes=[list(size.dilations)] * repeats,
            kernel_predictor_hidden_channels=size.hidden,
        )
        peer = UnivNetModel(settings).eval()
        named = {}
        for name, tensor in folded.items():
            for ours, theirs in UNIVNET_NAMES.items():
                name = name.replace(ours, theirs)
            inner = "conv_blocks." in name
            named[name.replace("conv_blocks.", "resblocks.").replace(".conv1.", ".conv.") if inner else name] = tensor
        peer.load_state_dict(named)
        return lambda mel, noise: peer(mel.transpose(1, 2), noise.transpose(1, 2)).waveforms
    if not size.paired:
        return None
    settings = SpeechT5HifiGanConfig(
        upsample_initial_channel=size.channels,
        upsample_rates=list(size.strides),
        upsample_kernel_sizes=list(size.kernels),
        resblock_kernel_sizes=list(size.resblock_kernels),
        resblock_dilation_sizes=[list(dilations) for dilations in size.resblock_dilations],
        normalize_before=False,
    )
    peer = SpeechT5HifiGan(settings).eval()
    peer.load_state_dict({name.replace("ups.", "upsampler."): tensor for name, tensor in folded.items()}, strict=False)
    return lambda mel, noise: peer(mel.transpose(1, 2))


def official_vocos(size: VocosSize, state: State) -> Callable[[Tensor, Tensor | None], Tensor] | None:
    """Returns backbone and head of the official package with these weights; None where it is not installed."""
    if importlib.util.find_spec("vocos") is None:
        return None
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone

    backbone = VocosBackbone(AUDIO.n_mels, size.width, size.inner_width, size.blocks).eval()
    head = ISTFTHead(size.width, size.n_fft, size.hop, padding="same").eval()
    for part, network in (("backbone.", backbone), ("head.", head)):
        own = {name.removeprefix(part): tensor for name, tensor in state.items() if name.startswith(part)}
        network.load_state_dict(own, strict=part == "backbone.")  # the head has a window
    return lambda mel, noise: head(backbone(mel))


def time_in_turns(programs: dict[str, Callable[[], np.ndarray]], repeats: int) -> dict[str, float]:
    """Returns the seconds of each program's fastest pass."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(programs, float("inf"))
    for turn in range(repeats + 1):  # the first one is warm-up
        for name, program in programs.items():
            start = clock()
            program()
            best[name] = min(best[name], clock() - start) if turn else best[name]
    return best


def settings_of(kind: str, variant: str, frames: int, iterations: int, **keys: str) -> VocoderConfig:
    """Returns settings that generate `frames` at once."""
    return VocoderConfig.model_validate(
        {"type": kind, "variant": variant, "chunk_frames": frames, "refinement_iterations": iterations, **keys}
    )


def compare_griffin_lim(start: str, mel: np.ndarray, repeats: int) -> dict[str, float]:
    """Returns the speed of Griffin-Lim."""
    settings = {"griffin_lim_start": start, "griffin_lim_iterations": ITERATIONS[start], "chunk_frames": len(mel)}
    vocoder = build_vocoder(VocoderConfig.model_validate(settings), AUDIO)
    seconds = time_in_turns({"ours": lambda: vocoder(mel)}, repeats)["ours"]
    return {"x_real_time_ours": len(mel) * AUDIO.hop_length / AUDIO.sample_rate / seconds}


def compare(name: str, frames: int, repeats: int, with_peer: bool) -> dict[str, float]:
    """Returns speeds, ratios and sample differences of one size."""
    kind, variant, *refinement = name.split("-")
    mel = random_mel(frames)
    if kind == "griffin_lim":
        return compare_griffin_lim(variant, mel, repeats)
    plain = random_generator(kind, variant, torch.from_numpy(mel.T)[None])
    state = official_state(plain)
    weights = VocoderWeights(
        kind=kind, variant=variant, audio=AUDIO, steps=1, generator=state, discriminators={}, origin="random"
    )
    iterations = int(refinement[0]) if refinement else 0
    ours = NeuralVocoder.from_weights(weights, settings_of(kind, variant, frames, iterations))
    padded = nn.functional.pad(torch.from_numpy(mel.T)[None], (0, plain.tail_frames), value=SILENCE)
    noise = ours.noise(padded.shape[2])
    count = frames * plain.hop

    def run_plain() -> np.ndarray:
        with torch.inference_mode():
            return plain(padded, noise)[0, 0, :count].numpy()

    programs = {"ours": lambda: ours(mel), "plain": run_plain}
    if refinement:
        del programs["plain"]
    if computes_in_bfloat16():
        bfloat16 = settings_of(kind, variant, frames, iterations, precision="bfloat16")
        programs["bfloat16"] = (lambda vocoder: lambda: vocoder(mel))(NeuralVocoder.from_weights(weights, bfloat16))
    folded = build_generator(kind, variant, AUDIO)
    folded.load_state_dict(plain.state_dict())
    peer = peer_of(kind, variant, fold_norms(folded).state_dict()) if with_peer else None
    if peer is not None:

        def run_peer() -> np.ndarray:
            with torch.inference_mode():
                return peer(padded, noise)[0, :count].numpy()

        programs["peer"] = run_peer
    samples = {program: run() for program, run in programs.items()}
    seconds = time_in_turns(programs, repeats)
    speech_seconds = count / AUDIO.sample_rate
    results = {f"x_real_time_{program}": speech_seconds / spent for program, spent in seconds.items()}
    for program in programs:
        if program != "ours":
            results[f"ratio_to_{program}"] = seconds[program] / seconds["ours"]
            results[f"difference_to_{program}"] = float(np.abs(samples[program] - samples["ours"]).max())
    results["level"] = float(samples["ours"].std())
    return results


def time_training(name: str, repeats: int) -> dict[str, float]:
    """Returns the seconds of the fastest training step of one size, and its number of parameters."""
    kind, variant, *_ = name.split("-")
    mel = torch.from_numpy(np.stack([random_mel(SEGMENT).T] * BATCH))
    samples = torch.randn(BATCH, 1, SEGMENT * AUDIO.hop_length) * 0.1
    results = {}
    for label, start in (("before_discriminators", 1.0), ("with_discriminators", 0.0)):
        settings = VocoderConfig.model_validate({"type": kind, "variant": variant, "adversarial_start": start})
        plan = TrainingPlan(settings=settings, audio=AUDIO, steps=10**6, seed=0, fingerprint="", identity={})
        with tempfile.TemporaryDirectory() as folder:
            state = VocoderTrainingState(plan, Path(folder))
        step = AdversarialStep(state)

        def take(step: AdversarialStep = step) -> np.ndarray:
            assert step(mel, samples) is not None
            return np.empty(0)

        results[f"seconds_{label}"] = time_in_turns({"step": take}, repeats)["step"]
        results["million_parameters"] = sum(parameter.numel() for parameter in state.generator.parameters()) / 1e6
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=SIZES)
    parser.add_argument("--frames", type=int, default=344, help="Mel frames; 344 are four seconds.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("--training", action="store_true", help="Time training steps instead of synthesis.")
    parser.add_argument("--no-peer", action="store_true", help="Without other packages.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = {}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for name in arguments.sizes:
            if arguments.training and name.startswith("griffin_lim"):
                continue
            values = (
                time_training(name, arguments.repeats)
                if arguments.training
                else compare(name, arguments.frames, arguments.repeats, not arguments.no_peer)
            )
            results[f"{name}, {threads} threads"] = values
            if not arguments.json:
                print(f"{name}, {threads} threads", *(f"{k} {v:.3g}" for k, v in values.items()), sep="  ", flush=True)
    if arguments.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
