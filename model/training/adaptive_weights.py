"""Loss weights that follow the losses, within bounds: no term drowns the others because it falls later than they do.

The gradient is clipped to a joint norm, so a term that grows relative to the rest takes its place from them. Its weight
is held back by as much, and the weight of one that shrinks is lifted, around the ratios that the settings give.
"""

from __future__ import annotations

import math
from typing import Any

from model.config.schema import LossConfig
from model.training.losses import loss_weights

LARGEST_FACTOR = 3.0
"""A weight stays between its base divided and multiplied by this."""
LARGEST_CHANGE = 0.05
"""Relative change of a weight at one update."""
DEAD_BAND = 0.25
"""A relative growth (natural log) that is noise: about four deviations of a mean over `MEMORY` noisy steps."""
MEMORY = 100
"""Steps that a running magnitude remembers; the first so many give the reference."""


def unscheduled_weights(config: LossConfig) -> dict[str, float]:
    """Weights of the terms that have one, and the same one all the time: schedules are nobody's to adapt."""
    steps = [loss_weights(config, i / 50) for i in range(51)]
    constant = {name for name in steps[0] if len({step[name] for step in steps}) == 1}
    return {name: weight for name, weight in steps[0].items() if weight > 0 and name in constant}


class AdaptiveWeights:
    """Factors on the base weights: 1 until the reference is known, and exactly 1 while nothing but noise moves.

    Args:
        terms: Names of the terms to adapt.
        interval: Steps between updates.
    """

    def __init__(self, terms: list[str], interval: int) -> None:
        self.interval = interval
        self.steps = 0
        self.magnitudes = dict.fromkeys(terms, 0.0)
        self.reference: dict[str, float] = {}
        self.factors = dict.fromkeys(terms, 1.0)

    def weights(self, base: dict[str, float]) -> dict[str, float]:
        """The weights of this step, from the scheduled ones."""
        return {name: weight * self.factors.get(name, 1.0) for name, weight in base.items()}

    def update(self, terms: dict[str, float]) -> None:
        """Take in the unweighted terms of one good step."""
        self.steps += 1
        pace = 1 / min(self.steps, MEMORY)
        present = [name for name in self.magnitudes if name in terms]  # a feature that is off has no term
        for name in present:
            self.magnitudes[name] += pace * (terms[name] - self.magnitudes[name])
        if self.steps == MEMORY:
            self.reference = {name: self.magnitudes[name] for name in present}
        elif self.steps > MEMORY and self.steps % self.interval == 0:
            self._adapt([name for name in present if name in self.reference])

    def _adapt(self, names: list[str]) -> None:
        tiny = 1e-12
        growth = {name: math.log((self.magnitudes[name] + tiny) / (self.reference[name] + tiny)) for name in names}
        common = sum(growth.values()) / len(growth)
        step, bound = math.log1p(LARGEST_CHANGE), math.log(LARGEST_FACTOR)
        for name, own in growth.items():
            relative = own - common
            beyond = math.copysign(max(abs(relative) - DEAD_BAND, 0.0), relative)
            target = min(max(-beyond, -bound), bound)
            now = math.log(self.factors[name])
            self.factors[name] = math.exp(now + min(max(target - now, -step), step))

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "magnitudes": self.magnitudes,
            "reference": self.reference,
            "factors": self.factors,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.state_dict():
            value = state[name]
            setattr(self, name, dict(value) if isinstance(value, dict) else value)
