"""Compares a version with thresholds and with the champion, and promotes it if it passes both."""

import html
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from components.contracts import (
    EvaluateOutput,
    GateOutput,
    PreprocessOutput,
    RegisterOutput,
    ResolveDataOutput,
    TrainOutput,
)
from components.gate.metrics import LOWER_IS_BETTER, PRIMARY, gate_metrics, reasons
from components.registry import CHAMPION, ROLLED_BACK, Registry, Version
from components.results import Results
from components.runner import parse_settings
from components.state import State, read_json
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.evaluation import EvaluateSettings, GateSettings, RegistryConfig
from model.errors import MyXTTSError
from model.files import write_json

PASSED, FAILED, NOT_APPLICABLE = "pass", "fail", "not applicable"


class GateFailed(MyXTTSError):
    """The candidate was not promoted; the message names every check that failed."""

    exit_code = 1

    def __init__(self, message: str, output: GateOutput) -> None:
        super().__init__(message)
        self.output = output

    @property
    def report(self) -> Path:
        """The gate's report (`gate.json`)."""
        return self.output.report


@dataclass(frozen=True)
class Check:
    """One check of the gate.

    Attributes:
        name: What is checked.
        result: `pass`, `fail` or `not applicable`.
        reason: The numbers behind the result.
    """

    name: str
    result: str
    reason: str


def run(
    data: str,
    features: str,
    training: str,
    evaluation: str,
    registration: str,
    settings: str,
    evaluate_settings: str,
) -> GateOutput:
    """Checks the registered version and promotes it when no check fails.

    Args:
        data: Path of the `ResolveDataOutput`, on which the champion is evaluated too.
        features: Path of the `PreprocessOutput`.
        training: Path of the `TrainOutput`, which the report names.
        evaluation: Path of the `EvaluateOutput`.
        registration: Path of the `RegisterOutput`.
        settings: JSON of the `GateSettings`.
        evaluate_settings: JSON of the `EvaluateSettings` of the evaluation, which the champion's evaluation uses too.

    Raises:
        GateFailed: a check failed; nothing was promoted.
    """
    corpus, store = ResolveDataOutput.read(data), PreprocessOutput.read(features)
    trained, evaluated = TrainOutput.read(training), EvaluateOutput.read(evaluation)
    registered = RegisterOutput.read(registration)
    config = parse_settings(GateSettings, settings).registry
    evaluate_config = parse_settings(EvaluateSettings, evaluate_settings)
    state = State.locate()
    registry = Registry(state)
    name, number = registered.name, registered.version
    candidate = registry.version(name, number)
    champion_number = registry.aliases(name).get(CHAMPION, "")
    results = read_json(evaluated.evaluation / "metrics.json")
    metrics = gate_metrics(results)
    rolled_back = candidate.tags.get(ROLLED_BACK, "")
    path = state.gate(settings_hash({"name": name, "version": number})) / "gate.json"
    judged_on = settings_hash(
        {
            "registration": [name, number],
            "data": corpus.data_hash,
            "features": store.features_hash,
            "settings": config.model_dump(mode="json"),
            "evaluation": evaluate_config.model_dump(mode="json"),
            "metrics": {key: repr(value) for key, value in metrics.items()},
            "champion": champion_number,
            "rolled back": rolled_back,
            "code": code_hash("components.gate.run"),
        }
    )
    _raise_recorded_failure(path, judged_on)
    checks = threshold_checks(metrics, config, reasons(results))
    if rolled_back:
        reason = f"was rolled back: {rolled_back}; promote it by hand if it is good after all"
        checks.append(Check("not rolled back", FAILED, reason))
    if champion_number not in ("", number):
        champion = registry.version(name, champion_number)
        theirs = champion_metrics(state, registry, champion, corpus, store, evaluate_config)
        checks += champion_checks(metrics, theirs, config)
    passed = not any(check.result == FAILED for check in checks)
    _tag_results(registry, candidate, checks)
    if passed:
        from components.smoke_test import smoke_test  # imports torch, which the other checks do without

        registry.promote(name, number, champion_number, "passed the pipeline's gate", smoke_test)
    champion_now = registry.aliases(name).get(CHAMPION, "")
    output = GateOutput(
        summary=f"champion is version {champion_now}",
        name=name,
        version=number,
        champion=champion_now,
        champion_before=champion_number,
        report=path,
        training=trained.training,
        evaluation=evaluated.evaluation,
    )
    report = {
        **output.plain(),
        "judged_on": judged_on,
        "passed": passed,
        "metrics": metrics,
        "checks": [asdict(check) for check in checks],
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    write_json(path, report)
    if not passed:
        raise _failure(report)
    return output


def _raise_recorded_failure(path: Path, judged_on: str) -> None:
    """Raises the recorded failure of a version whose checks would use the same inputs again.

    A pipeline keeps no result of a failed step and runs it again, which would evaluate the champion once more.

    Raises:
        GateFailed: the version failed before, with the same inputs.
    """
    if not path.is_file():
        return
    known = read_json(path)
    if known.get("judged_on") == judged_on and not known["passed"]:
        raise _failure(known, f"; judged {known['time']}, and nothing that the checks use has changed since")


def _failure(report: Mapping[str, Any], note: str = "") -> GateFailed:
    failed = (check for check in report["checks"] if check["result"] == FAILED)
    reasons = "\n".join(f"  {check['name']}: {check['reason']}" for check in failed)
    return GateFailed(
        f"{report['name']} version {report['version']} was not promoted "
        f"(champion: {report['champion'] or 'none'}{note}); report: {report['report']}\n{reasons}",
        GateOutput.from_plain({field.name: report[field.name] for field in fields(GateOutput)}),
    )


def results(output: GateOutput) -> Results:
    """Returns the decision with its reasons, and the metrics that led to it."""
    report = read_json(output.report)
    metrics = {name: value for name, value in report["metrics"].items() if value is not None}
    decision = "passed the gate" if report["passed"] else "did not pass the gate"
    lines = [
        f"## {report['name']} version {report['version']} {decision}",
        "",
        f"Champion: {_champion(report['champion'])}; before: {_champion(report['champion_before'])}.",
        "",
        "| check | result | reason |",
        "| --- | --- | --- |",
        *(f"| {_cell(check['name'])} | {check['result']} | {_cell(check['reason'])} |" for check in report["checks"]),
        "",
        f"Evaluation: `{report['evaluation']}`, training: `{report['training']}`, {report['time']}.",
        "",
    ]
    return Results(metrics={"passed": float(report["passed"]), **metrics}, markdown="\n".join(lines))


def _champion(version: str) -> str:
    return f"version {version}" if version else "none"


def _cell(text: str) -> str:
    """Returns a text for the cell of a Markdown table: reasons contain what people typed when they rolled back."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def _tag_results(registry: Registry, candidate: Version, checks: list[Check]) -> None:
    """Puts the results of the checks on the version as tags, in place of those of an earlier gate."""
    results = {f"gate.{check.name.replace(' ', '_')}": f"{check.result}: {check.reason}"[:500] for check in checks}
    for key in candidate.tags:
        if key.startswith("gate.") and key not in results:
            registry.client.delete_model_version_tag(candidate.name, candidate.number, key)
    for key, value in results.items():
        registry.client.set_model_version_tag(candidate.name, candidate.number, key, value)


def threshold_checks(
    metrics: Mapping[str, float | None], config: RegistryConfig, why_not: Mapping[str, str] | None = None
) -> list[Check]:
    """Returns the checks of the candidate's metrics against the thresholds of `registry`.

    Args:
        metrics: Value of each metric; `None` where it does not apply.
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
        value = metrics[name]
        sign = "at most" if LOWER_IS_BETTER[name] else "at least"
        if value is None:
            checks.append(
                Check(name.replace("_", " "), NOT_APPLICABLE, why_not.get(name) or "was not measured on this corpus")
            )
            continue
        good = value <= limit if LOWER_IS_BETTER[name] else value >= limit  # False for NaN
        checks.append(
            Check(name.replace("_", " "), PASSED if good else FAILED, f"{value:.3f}, must be {sign} {limit:g}")
        )
    if all(value is None for value in metrics.values()):
        checks.append(
            Check("measured at all", FAILED, "no metric applies to this corpus, so nothing speaks for promotion")
        )
    return checks


def champion_checks(
    metrics: Mapping[str, float | None], theirs: Mapping[str, float | None], config: RegistryConfig
) -> list[Check]:
    """Returns the check of the candidate's primary metric against the champion's on the same data."""
    ours, best = metrics[PRIMARY], theirs[PRIMARY]
    label = f"{PRIMARY.replace('_', ' ')} against the champion"
    if ours is None or best is None:
        return [Check(label, NOT_APPLICABLE, "one of the two was not measured")]
    limit = best * (1 + config.max_regression)
    good = ours <= limit
    return [Check(label, PASSED if good else FAILED, f"{ours:.3f}, champion {best:.3f}, must be at most {limit:.3f}")]


def champion_metrics(
    state: State,
    registry: Registry,
    champion: Version,
    corpus: ResolveDataOutput,
    store: PreprocessOutput,
    settings: EvaluateSettings,
) -> dict[str, float | None]:
    """Returns the champion's metrics on the candidate's data under the candidate's evaluation settings.

    The champion is evaluated again when it was made from other data: metrics on other sentences do not compare.
    """
    from components.evaluate.run import evaluation_of  # imports torch, which the other checks do without

    folder = evaluation_of(
        voice=registry.voice_folder(f"models:/{champion.name}/{champion.number}"),
        voice_hash=champion.tags["voice.sha256"],
        corpus=corpus,
        store=store,
        settings=settings,
        state=state,
        step="gate",
    )
    return gate_metrics(read_json(folder / "metrics.json"))
