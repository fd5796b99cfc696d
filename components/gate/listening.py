"""Check of the gate: enough listeners have compared the candidate with the champion, and do not prefer the latter."""

import json

from components.gate.checks import FAILED, PASSED, Check
from model.config.evaluation import RegistryConfig

LISTENING = "listening"
"""Tag of a version: summary of its listening test, as JSON."""


def listening_check(tag: str, champion: str, config: RegistryConfig) -> Check:
    """Returns the check of a listening test.

    It passes with enough listeners, where the lower end of the interval of the share of answers for the candidate is no
    more than `registry.listening_margin` below one half.

    Args:
        tag: Value of the tag `LISTENING` of the candidate; '' before any listening test.
        champion: Version number of the champion.
        config: Requirements of a promotion.
    """
    name = "listening test"
    if not tag:
        return Check(name, FAILED, "nobody has listened yet: `myxtts registry listen`, then `myxtts registry promote`")
    found = json.loads(tag)
    least = 0.5 - config.listening_margin
    numbers = (
        f"preferred in {found['preferred']:.0%} of {found['answers']} answers ({found['low']:.0%} to "
        f"{found['high']:.0%}), must be at least {least:.0%}; {found['listeners']} listeners"
    )
    if found["against"] != champion:
        return Check(name, FAILED, f"was against version {found['against']}, the champion is {champion}; listen again")
    if found["listeners"] < config.require_listening:
        return Check(name, FAILED, f"{numbers}, registry.require_listening asks for {config.require_listening}")
    return Check(name, PASSED if found["low"] >= least else FAILED, numbers)
