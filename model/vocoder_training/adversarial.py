"""Losses of a vocoder and one adversarial training step."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial, reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.loop.devices import has_native_bfloat16
from model.vocoder.discriminators import HeadOutput, discriminate, discriminate_pair
from model.vocoder.vocos import Vocos
from model.vocoder_training.state import VocoderTrainingState

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""(n_fft, hop, window) of the multi-resolution STFT loss, as published."""
EDGE = 2
"""Frames at each end of a segment whose window reaches beyond it."""
SILENT = 1e-4
"""Magnitude below which a bin counts as silent."""
FLOOR = 1e-7
"""Power below which a spectrogram bin counts as silent: keeps logarithm and gradient finite."""


def discriminator_loss(
    real: list[HeadOutput], fake: list[HeadOutput], average: bool = False, hinge: bool = False
) -> Tensor:
    """Computes the loss of the discriminators.

    The least-squares loss (arXiv:1611.04076) has the target 1 for recordings and 0 for generated speech; the hinge loss
    (arXiv:1705.02894) is 0 from 1 upwards for recordings and from -1 downwards for generated speech.

    Args:
        real, fake: Outputs of the same heads for recordings and for generated speech.
        average: Average over the heads (UnivNet, Vocos) instead of summing (HiFi-GAN).
        hinge: Hinge loss (Vocos) instead of least squares.
    """
    if hinge:
        terms = [(1 - r).relu().mean() + (1 + f).relu().mean() for (r, _), (f, _) in zip(real, fake, strict=True)]
    else:
        terms = [(1 - r).square().mean() + f.square().mean() for (r, _), (f, _) in zip(real, fake, strict=True)]
    total = torch.stack(terms).sum()
    return total / len(terms) if average else total


def adversarial_loss(fake: list[HeadOutput], average: bool = False, hinge: bool = False) -> Tensor:
    """Computes the loss of the generator: target 1 (hinge: at least 1) for generated speech."""
    errors = [1 - score for score, _ in fake]
    total = torch.stack([(error.relu() if hinge else error.square()).mean() for error in errors]).sum()
    return total / len(fake) if average else total


def feature_matching_loss(real: list[HeadOutput], fake: list[HeadOutput], average: bool = False) -> Tensor:
    """Sums the mean absolute difference of activations over all layers (arXiv:1910.06711).

    `average` divides by the number of heads.
    """
    total = torch.stack(
        [
            F.l1_loss(f, r.detach())
            for (_, real_features), (_, fake_features) in zip(real, fake, strict=True)
            for r, f in zip(real_features, fake_features, strict=True)
        ]
    ).sum()
    return total / len(fake) if average else total


def decayed(final_ratio: float, progress: float, cosine: bool) -> float:
    """Returns the factor on the learning rate at `progress` (share of the steps, 0 to 1): from 1 to `final_ratio`."""
    if cosine:
        return final_ratio + (1 - final_ratio) * (1 + math.cos(math.pi * progress)) / 2
    return float(final_ratio**progress)


class FullBandMel(nn.Module):
    """Log-mel extractor up to half the sample rate for the mel loss; the generator reads mels up to `fmax` only."""

    def __init__(self, audio: AudioConfig) -> None:
        super().__init__()
        self.extractor = MelExtractor(audio.model_copy(update={"fmax": audio.sample_rate / 2}))

    def forward(self, samples: Tensor) -> Tensor:
        """Returns the log-mel (B, M, S) of samples (B, 1, N)."""
        return self.extractor(samples[:, 0])


class MultiResolutionStft(nn.Module):
    """Multi-resolution STFT loss: spectral convergence and log-magnitude distance (arXiv:1910.11480).

    Args:
        resolutions: (n_fft, hop, window) of each STFT.
    """

    def __init__(self, resolutions: tuple[tuple[int, int, int], ...] = RESOLUTIONS) -> None:
        super().__init__()
        self.resolutions = resolutions
        for index, (_, _, window) in enumerate(resolutions):
            self.register_buffer(f"window_{index}", torch.hann_window(window), persistent=False)

    def forward(self, generated: Tensor, recorded: Tensor) -> tuple[Tensor, Tensor]:
        """Returns spectral convergence (relative) and log-magnitude L1 distance (nepers) of two signals (B, 1, N).

        Both are averaged over the resolutions, and 0 for equal signals.
        """
        convergence, distance = [], []
        for index in range(len(self.resolutions)):
            fake, real = self._magnitudes(generated, index), self._magnitudes(recorded, index)
            convergence.append(torch.linalg.vector_norm(real - fake) / torch.linalg.vector_norm(real))
            distance.append(F.l1_loss(fake.log(), real.log()))
        return torch.stack(convergence).mean(), torch.stack(distance).mean()

    def _magnitudes(self, samples: Tensor, index: int) -> Tensor:
        n_fft, hop, window = self.resolutions[index]
        with torch.autocast(samples.device.type, enabled=False):
            spectrum = torch.stft(
                samples[:, 0].float(), n_fft, hop, window, getattr(self, f"window_{index}"), return_complex=True
            )
            return torch.view_as_real(spectrum).square().sum(-1).clamp(min=FLOOR).sqrt()


class AdversarialStep:
    """Adversarial training step of generator and discriminators.

    The learning rate decays over the planned steps; new discriminators start after a share of them.

    Args:
        state: State of the run; the caller advances its step.
    """

    def __init__(self, state: VocoderTrainingState) -> None:
        self.state = state
        self.mel = FullBandMel(state.audio).to(state.device)
        self.stft = MultiResolutionStft().to(state.device)
        mixed = state.settings.use_mixed_precision and has_native_bfloat16(state.device)
        recipe = state.recipe
        self.weights = {
            "mel": recipe.mel,
            "stft": recipe.stft,
            "magnitude": recipe.magnitude,
            "feature_matching": recipe.feature_matching,
            "adversarial": 1.0,
        }
        self.precision = partial(torch.autocast, state.device.type, torch.bfloat16, enabled=mixed)

    def __call__(self, mel: Tensor, recorded: Tensor) -> dict[str, float] | None:
        """Trains on one batch.

        Args:
            mel: (B, M, S) log-mel.
            recorded: (B, 1, S * hop) samples.

        Returns:
            The unweighted terms and the learning rate, or None where a loss or gradient was not finite, in which case
            the generator was not changed.
        """
        state, settings = self.state, self.state.settings
        mel, recorded = mel.to(state.device), recorded.to(state.device)
        progress = state.step / state.plan.steps
        learning_rate = state.initial_learning_rate * decayed(
            settings.final_learning_rate_ratio, progress, state.recipe.use_cosine_decay
        )
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate
        adversarial = state.step >= state.adversarial_start * state.plan.steps
        frozen = not state.new_discriminators and state.step < settings.discriminator_freeze_steps
        terms: dict[str, Tensor] = {}
        generator_terms = self._magnitude_terms(mel, recorded)
        if adversarial or state.recipe.mel or state.recipe.stft:
            with self.precision():
                generated = state.generator(mel).float()
            if adversarial and not frozen:
                terms["discriminator"] = self._discriminator_loss(generated.detach(), recorded)
                if not self.descend(terms["discriminator"], state.discriminators):
                    return None
            generator_terms |= self._generator_terms(generated, recorded, adversarial)
        loss = reduce(operator.add, (self.weights[name] * term for name, term in generator_terms.items()))
        if not self.descend(loss, state.generator):
            return None
        values = {name: float(term.detach()) for name, term in (terms | generator_terms).items()}
        return values | {"learning_rate": learning_rate}

    def descend(self, loss: Tensor, network: nn.Module) -> bool:
        """Updates one network; returns False, without an update, where the loss or gradient is not finite."""
        optimizer = self.state.optimizer
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = self.state.settings.gradient_clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
        if not torch.isfinite(norm) or not torch.isfinite(loss):
            return False
        optimizer.step()
        return True

    def _discriminator_loss(self, generated: Tensor, recorded: Tensor) -> Tensor:
        with self.precision():
            real, fake = discriminate_pair(self.state.discriminators, recorded, generated)
        recipe = self.state.recipe
        loss = partial(discriminator_loss, average=recipe.average_heads, hinge=recipe.use_hinge_loss)
        return self._weighted(loss, _float(real), _float(fake))

    def _magnitude_terms(self, mel: Tensor, recorded: Tensor) -> dict[str, Tensor]:
        """Returns the unweighted distance of the predicted magnitudes from those of the recording.

        It is the L1 distance of their logarithms plus the spectral convergence (arXiv:1910.11480). No samples are
        generated for it. The frames at the ends of a segment, which reach beyond it, are left out.
        """
        if not self.state.recipe.magnitude:
            return {}
        assert isinstance(self.state.generator, Vocos)
        with self.precision():
            predicted = self.state.generator.magnitudes(mel)[:, EDGE:-EDGE]
        with torch.no_grad():
            real = self.mel.extractor.magnitudes(recorded[:, 0]).transpose(1, 2)[:, EDGE:-EDGE]
        convergence = torch.linalg.vector_norm(predicted - real) / torch.linalg.vector_norm(real)
        distance = F.l1_loss(predicted.clamp(min=SILENT).log(), real.clamp(min=SILENT).log())
        return {"magnitude": distance + convergence}

    def _generator_terms(self, generated: Tensor, recorded: Tensor, adversarial: bool) -> dict[str, Tensor]:
        """Returns the unweighted loss terms of the generator.

        Args:
            generated, recorded: (B, 1, N) samples.
            adversarial: Whether the discriminators have joined.
        """
        recipe, discriminators = self.state.recipe, self.state.discriminators
        terms = {}
        if recipe.mel:
            terms["mel"] = F.l1_loss(self.mel(generated), self.mel(recorded))
        if recipe.stft:
            terms["stft"] = torch.stack(self.stft(generated, recorded)).sum()
        if not adversarial:
            return terms
        discriminators.requires_grad_(False)
        with self.precision():
            fake = discriminate(discriminators, generated)
            real = self._discriminate_recorded(recorded) if recipe.feature_matching else []
        discriminators.requires_grad_(True)
        loss = partial(adversarial_loss, average=recipe.average_heads, hinge=recipe.use_hinge_loss)
        terms["adversarial"] = self._weighted(loss, _float(fake))
        if recipe.feature_matching:
            loss = partial(feature_matching_loss, average=bool(recipe.discriminator_weights))
            terms["feature_matching"] = self._weighted(loss, _float(real), _float(fake))
        return terms

    def _weighted(self, loss: Callable[..., Tensor], *outputs: list[HeadOutput]) -> Tensor:
        """Returns a loss of the outputs of all heads, or the weighted sum over discriminators that have weights."""
        weights, total, end = self.state.recipe.discriminator_weights, None, 0
        if not weights:
            return loss(*outputs)
        for name, discriminator in self.state.discriminators.items():
            heads_of_this = discriminator.discriminators
            assert isinstance(heads_of_this, nn.ModuleList)
            start, end = end, end + len(heads_of_this)
            term = weights[name] * loss(*(heads[start:end] for heads in outputs))
            total = term if total is None else total + term
        assert total is not None
        return total

    @torch.no_grad()
    def _discriminate_recorded(self, recorded: Tensor) -> list[HeadOutput]:
        return discriminate(self.state.discriminators, recorded)


def _float(outputs: list[HeadOutput]) -> list[HeadOutput]:
    """Converts the outputs of discriminators from autocast types to float32."""
    return [(score.float(), [feature.float() for feature in features]) for score, features in outputs]
