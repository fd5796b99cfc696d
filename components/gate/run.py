"""Decide on a promotion: thresholds first, then the champion; move the alias only when both agree."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.gate.measures import LOWER_IS_BETTER, PRIMARY, measures, reasons
from components.registry import CHAMPION, ROLLED_BACK, Registry, Version, smoke_test
from components.runner import read_pointer
from components.state import State, read_json, write_json
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.evaluation import RegistryConfig
from model.config.schema import Config
from model.errors import MyXTTSError

PASSED, FAILED, NOT_APPLICABLE = "pass", "fail", "not applicable"


class GateFailed(MyXTTSError):
    """The candidate was not promoted; the message names every check that failed."""

    exit_code = 1

    def __init__(self, message: str, report: Path) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class Check:
    """One question of the gate.

    Attributes:
        name: What was asked.
        result: `pass`, `fail` or `not applicable`.
        reason: The numbers behind it.
    """

    name: str
    result: str
    reason: str


def run(registration: str, settings: str) -> dict[str, Any]:
    """Judge the registered version and promote it when it passes.

    Args:
        registration: Path of the pointer that `register` wrote.
        settings: JSON of the section `registry`.

    Returns:
        The registration's pointer with `champion`.

    Raises:
        GateFailed: a check failed; nothing was promoted.
    """
    registered = read_pointer(registration)
    config = Config.model_validate(json.loads(settings)).registry
    state = State.locate()
    registry = Registry(state)
    name, number = registered["name"], registered["version"]
    candidate = registry.version(name, number)
    champion_number = registry.aliases(name).get(CHAMPION, "")
    evaluated = read_json(Path(registered["folder"]) / "metrics.json")
    mine = measures(evaluated)
    rolled_back = candidate.tags.get(ROLLED_BACK, "")
    folder = state.gate(settings_hash({"name": name, "version": number}))
    judged_on = settings_hash(
        {
            "registered": registered,
            "settings": config.model_dump(mode="json"),
            "measures": {key: repr(value) for key, value in mine.items()},
            "champion": champion_number,
            "rolled back": rolled_back,
            "code": code_hash("components.gate.run"),
        }
    )
    _answer_from_record(folder / "gate.json", judged_on)
    checks = threshold_checks(mine, config, reasons(evaluated))
    if rolled_back:
        reason = f"was rolled back: {rolled_back}; promote it by hand if it is right after all"
        checks.append(Check("not rolled back", FAILED, reason))
    if champion_number not in ("", number):
        champion = registry.version(name, champion_number)
        checks += champion_checks(mine, champion_measures(state, registry, champion, registered), config)
    failed = [check for check in checks if check.result == FAILED]
    report = {
        **registered,
        "evaluation": registered["folder"],
        "folder": str(folder),
        "name": name,
        "version": number,
        "champion_before": champion_number,
        "judged_on": judged_on,
        "passed": not failed,
        "measures": mine,
        "checks": [asdict(check) for check in checks],
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    _tag_verdicts(registry, candidate, checks)
    if not failed:
        registry.promote(name, number, champion_number, "passed the pipeline's gate", smoke_test)
    report["champion"] = registry.aliases(name).get(CHAMPION, "")
    write_json(folder / "gate.json", report)
    if failed:
        raise _failure(report)
    return {
        **report,
        "summary": f"champion is version {report['champion']}",
    }


def _answer_from_record(path: Path, judged_on: str) -> None:
    """A pipeline keeps no result of a step that failed and runs it again: the same question gets the same answer.

    Raises:
        GateFailed: the version was judged before, by all the same, and failed.
    """
    if not path.is_file():
        return
    known = read_json(path)
    if known.get("judged_on") == judged_on and not known["passed"]:
        raise _failure(known, f"; judged {known['time']}, and nothing that it was judged by has changed since")


def _failure(report: Mapping[str, Any], note: str = "") -> GateFailed:
    path = Path(report["folder"]) / "gate.json"
    failed = (check for check in report["checks"] if check["result"] == FAILED)
    reasons = "\n".join(f"  {check['name']}: {check['reason']}" for check in failed)
    return GateFailed(
        f"{report['name']} version {report['version']} was not promoted "
        f"(champion: {report['champion'] or 'none'}{note}); report: {path}\n{reasons}",
        path,
    )


def _tag_verdicts(registry: Registry, candidate: Version, checks: list[Check]) -> None:
    """Put the verdicts on the version, in place of those of an earlier judgement."""
    verdicts = {f"gate.{check.name.replace(' ', '_')}": f"{check.result}: {check.reason}"[:500] for check in checks}
    for key in candidate.tags:
        if key.startswith("gate.") and key not in verdicts:
            registry.client.delete_model_version_tag(candidate.name, candidate.number, key)
    for key, value in verdicts.items():
        registry.client.set_model_version_tag(candidate.name, candidate.number, key, value)


def threshold_checks(
    mine: Mapping[str, float | None], config: RegistryConfig, why_not: Mapping[str, str] | None = None
) -> list[Check]:
    """Returns the checks of the candidate's metrics against the thresholds of `registry`.

    Args:
        mine: Value of each metric; `None` where it does not apply.
        config: The thresholds.
        why_not: Reason of each metric that does not apply, as the evaluation states it.
    """
    why_not = why_not or {}
    limits = {
        "mel_cepstral_distortion": config.max_mel_cepstral_distortion,
        "character_error_increase": config.max_character_error_increase,
        "alignment_monotonicity": config.min_alignment_monotonicity,
    }
    checks = []
    for name, limit in limits.items():
        value = mine[name]
        sign = "at most" if LOWER_IS_BETTER[name] else "at least"
        if value is None:
            checks.append(
                Check(name.replace("_", " "), NOT_APPLICABLE, why_not.get(name) or "was not measured on this corpus")
            )
            continue
        good = value <= limit if LOWER_IS_BETTER[name] else value >= limit  # NaN is never good
        checks.append(
            Check(name.replace("_", " "), PASSED if good else FAILED, f"{value:.3f}, must be {sign} {limit:g}")
        )
    if all(value is None for value in mine.values()):
        checks.append(
            Check("measured at all", FAILED, "no measure applies to this corpus: nothing speaks for promotion")
        )
    return checks


def champion_checks(
    mine: Mapping[str, float | None], theirs: Mapping[str, float | None], config: RegistryConfig
) -> list[Check]:
    """The candidate's primary measure against the champion's on the same data."""
    ours, best = mine[PRIMARY], theirs[PRIMARY]
    label = f"{PRIMARY.replace('_', ' ')} against the champion"
    if ours is None or best is None:
        return [Check(label, NOT_APPLICABLE, "one of the two was not measured")]
    limit = best * (1 + config.max_regression)
    good = ours <= limit
    return [Check(label, PASSED if good else FAILED, f"{ours:.3f}, champion {best:.3f}, must be at most {limit:.3f}")]


def champion_measures(
    state: State, registry: Registry, champion: Version, registered: Mapping[str, Any]
) -> dict[str, float | None]:
    """The champion's measures on the candidate's data under the candidate's evaluation settings.

    Measured anew when the champion was made from other data: numbers of other sentences do not compare.
    """
    from components.evaluate.run import measure  # imports torch, which the gate's other questions do without

    folder = measure(
        state,
        registry.voice_folder(f"models:/{champion.name}/{champion.number}"),
        champion.tags["voice.sha256"],
        registered["features"],
        registered["features_hash"],
        registered["corpus"],
        registered["data"],
        json.loads(registered["evaluation_settings"]),
    )
    return measures(read_json(folder / "metrics.json"))
