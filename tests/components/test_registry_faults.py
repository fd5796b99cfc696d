"""Promotion, rollback and registration under kills and between machines: they happen as a whole or not at all.

A kill is an exception at a write, before it or after it; nothing of a killed process acts afterwards. Another machine
is another client of the same MLflow.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from mlflow_double import MlflowDouble

from components import registry as module
from components.journal import Journal
from components.process_identity import ProcessStatus
from components.registry import CANDIDATE, CHAMPION, PREVIOUS, Registry, RegistryError
from components.state import State

NAME = "myxtts-toy-xtiny"
Action = Callable[[Registry], object]


class Killed(BaseException):
    """Stands for SIGKILL in these tests: no handler of the program catches it."""


class Machine(Registry):
    """The registry as one machine sees it."""

    def __init__(self, client: MlflowDouble, state: State) -> None:
        self.state = state
        self.client: MlflowDouble = client
        self._journals = {}

    def another(self) -> "Machine":
        return Machine(self.client.other(), self.state)

    def kill_at(self, place: int) -> None:
        """Kills the process at a place: 2 n is before and 2 n + 1 after the n-th write."""
        seen = -1

        def on_write(name: str, when: str) -> None:
            nonlocal seen
            seen += 1
            if seen >= place:
                raise Killed

        self.client.on_write = on_write

    def pause_at(self, place: int, meanwhile: Callable[[], object]) -> None:
        """Lets another machine act while this one is paused at a place."""
        seen = -1

        def on_write(name: str, when: str) -> None:
            nonlocal seen
            seen += 1
            if seen == place:
                meanwhile()

        self.client.on_write = on_write


def standing(registry: Registry) -> dict[str, str]:
    """Returns the aliases, and the versions that were rolled back, as `registry list` shows them."""
    rolled_back = [item.number for item in registry.versions(NAME) if "rolled_back" in item.tags]
    return {**registry.aliases(NAME), "rolled back": " ".join(sorted(rolled_back))}


@pytest.fixture
def fresh(tmp_path, monkeypatch) -> Callable[..., Machine]:
    """Returns a function that makes a machine with four versions of a model and promotes the given ones in turn."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.invalid")

    def make(*promoted: str) -> Machine:
        machine = Machine(MlflowDouble(), State(tmp_path))
        machine.client.create_registered_model(NAME)
        for number in range(4):
            machine.client.create_model_version(NAME, f"s3://voices/{number}", tags={"metric.old": "1.0"})
        for number in promoted:
            machine.promote(NAME, number, None, "prepared")
        machine.client.writes.clear()
        return machine.another()

    return make


def promote(number: str) -> Action:
    return lambda registry: registry.promote(NAME, number, None, "better", lambda version: None)


def roll_back(registry: Registry) -> object:
    return registry.rollback(NAME, "clicks")


def register(registry: Registry) -> object:
    return registry.make_candidate(NAME, "3", {"mel_cepstral_distortion": "6.5"})


OPERATIONS = [
    ((), promote("1")),
    (("1", "2"), promote("3")),
    (("1", "2", "3"), promote("1")),
    (("1", "2", "3"), roll_back),
    (("1", "2"), register),
    ((), register),
]


def places(machine: Machine, action: Action) -> Iterator[int]:
    """Yields every place at which an operation of an equal machine can be killed or paused."""
    action(machine)
    yield from range(2 * len(machine.client.writes))


@pytest.mark.parametrize(("promoted", "action"), OPERATIONS)
def test_a_kill_at_any_write_leaves_all_of_a_change_or_nothing(fresh, promoted, action):
    before, after = standing(fresh(*promoted)), fresh(*promoted)
    action(after)
    expected, seen = standing(after), set()
    for place in places(fresh(*promoted), action):
        killed = fresh(*promoted)
        killed.kill_at(place)
        with pytest.raises(Killed):
            action(killed)
        reader = killed.another()
        found = standing(reader)
        assert found in (before, expected), place
        seen.add(found == expected)
        if found == before:
            action(killed.another())
        assert standing(reader) == standing(killed.another()) == expected, place
        entries = reader.journal(NAME).entries()
        assert [entry.outcome for entry in entries] == ["applied"] * len(entries)
    assert seen == {True, False}  # kills before the decision as well as after it


@pytest.mark.parametrize(("promoted", "action"), OPERATIONS)
def test_the_command_again_after_a_kill_completes_the_same_change(fresh, promoted, action):
    """No other process reads the registry in between. A rollback must not return to the champion before the last."""
    after = fresh(*promoted)
    action(after)
    expected = standing(after)
    for place in places(fresh(*promoted), action):
        killed = fresh(*promoted)
        killed.kill_at(place)
        with pytest.raises(Killed):
            action(killed)
        if place < 2 * len(killed.client.writes) - 1 or killed.client.writes[-1] != "log_param outcome":
            action(killed.another())
            assert standing(killed.another()) == expected, place


def test_metrics_of_an_interrupted_registration_are_those_of_one_evaluation(fresh):
    for place in places(fresh(), register):
        killed = fresh()
        killed.kill_at(place)
        with pytest.raises(Killed):
            register(killed)
        metrics = killed.another().version(NAME, "3").metrics
        assert metrics in ({"old": 1.0}, {"mel_cepstral_distortion": 6.5})


@pytest.mark.parametrize(("promoted", "action"), OPERATIONS)
@pytest.mark.parametrize("other", [promote("4"), roll_back, register])
def test_a_slow_machine_does_not_undo_what_others_did_meanwhile(fresh, promoted, action, other):
    """Another machine completes an unfinished change and makes its own before the slow machine continues."""
    for place in places(fresh(*promoted), action):
        slow = fresh(*promoted)

        def meanwhile(slow=slow) -> None:
            with suppress(RegistryError):
                other(slow.another())
            standing(slow.another())  # a reader finishes what it finds

        slow.pause_at(place, meanwhile)
        with suppress(RegistryError):  # the other machine was faster
            action(slow)
        final = standing(slow.another())
        entries = slow.another().journal(NAME).entries()
        moves = [entry.operation for entry in entries if entry.operation.action != "register"]
        candidates = [entry.operation for entry in entries if entry.operation.action == "register"]
        assert final.get(CHAMPION, "") == (moves[-1].version if moves else ""), place
        assert final.get(PREVIOUS, "") == ((*moves[-1].earlier, "")[0] if moves else ""), place
        assert final.get(CANDIDATE, "") == (candidates[-1].version if candidates else ""), place
        for one, following in pairwise(moves):
            assert following.replaced == one.version  # nobody worked on a champion that was no longer


def test_of_two_gates_that_compared_with_the_same_champion_one_wins(fresh):
    def compared(number: str) -> Action:
        return lambda registry: registry.promote(NAME, number, "1", "passed the gate", lambda version: None)

    for place in places(fresh("1"), compared("2")):
        slow = fresh("1")
        outcomes, losses = [], []

        def attempt(machine, number, outcomes=outcomes, losses=losses) -> None:
            try:
                compared(number)(machine)
            except RegistryError as error:
                losses.append(str(error))
            else:
                outcomes.append(number)

        slow.pause_at(place, lambda slow=slow, attempt=attempt: attempt(slow.another(), "3"))
        attempt(slow, "2")
        assert len(outcomes) == 1, place
        assert ["compare again" in message for message in losses] == [True]
        assert standing(slow.another()) == {CHAMPION: outcomes[0], PREVIOUS: "1", "rolled back": ""}


def test_two_machines_that_begin_at_once_share_one_journal(fresh):
    for place in places(fresh(), promote("1")):
        slow = fresh()
        slow.pause_at(place, lambda slow=slow: promote("2")(slow.another()))
        promote("1")(slow)
        runs = {machine.journal(NAME).run_id for machine in (slow, slow.another(), slow.another())}
        assert len(runs) == 1
        names = [item.name for item in slow.client.content.experiments.values() if item.lifecycle_stage == "active"]
        assert len(names) == 1, names


def test_nothing_changes_before_the_check(fresh):
    machine = fresh("1")

    def check(version: object) -> None:
        assert standing(machine.another()) == {CHAMPION: "1", "rolled back": ""}
        raise Killed

    with pytest.raises(Killed):
        machine.promote(NAME, "2", "1", "untested", check)
    assert standing(machine.another()) == {CHAMPION: "1", "rolled back": ""}
    assert machine.client.writes == []


def test_a_champion_moved_by_hand_is_rolled_back_to_the_one_before(fresh):
    machine = fresh("1", "2", "3")
    machine.client.set_registered_model_alias(NAME, CHAMPION, "4")
    assert roll_back(machine) == ("4", "3")
    assert standing(machine) == {CHAMPION: "3", PREVIOUS: "2", "rolled back": "4"}


def test_a_champion_whose_version_was_deleted_is_replaced_by_the_one_before(fresh):
    machine = fresh("1", "2", "3")
    machine.client.delete_model_version(NAME, "3")
    assert roll_back(machine) == ("", "2")
    assert standing(machine) == {CHAMPION: "2", PREVIOUS: "1", "rolled back": ""}


def test_after_a_champion_moved_by_hand_a_promotion_keeps_both_earlier_ones(fresh):
    machine = fresh("1", "2")
    machine.client.set_registered_model_alias(NAME, CHAMPION, "4")
    promote("3")(machine)
    assert roll_back(machine) == ("3", "4")
    assert roll_back(machine) == ("4", "2")


def test_a_registry_from_before_the_journal_keeps_its_previous_champion(fresh):
    machine = fresh()
    machine.client.set_registered_model_alias(NAME, CHAMPION, "2")
    machine.client.set_registered_model_alias(NAME, PREVIOUS, "1")
    assert roll_back(machine) == ("2", "1")


def test_a_version_that_is_deleted_after_the_decision_abandons_the_promotion(fresh):
    machine = fresh("1", "2")

    def on_write(name: str, when: str) -> None:
        if (name, when) == ("log_param", "after"):
            machine.client.on_write = lambda *_: None
            machine.client.delete_model_version(NAME, "3")

    machine.client.on_write = on_write
    with pytest.raises(RegistryError, match=r"version 3 was abandoned: version 3 of .* no longer exists"):
        promote("3")(machine)
    assert standing(machine) == {CHAMPION: "2", PREVIOUS: "1", "rolled back": ""}
    assert roll_back(machine.another()) == ("2", "1")


def test_a_model_made_anew_under_the_same_name_begins_a_new_journal(fresh):
    machine = fresh("1", "2")
    del machine.client.content.models[NAME]
    machine.client.content.versions.clear()
    machine.client.create_registered_model(NAME)
    machine.client.create_model_version(NAME, "s3://voices/new")
    promote("1")(machine)
    assert standing(machine.another()) == {CHAMPION: "1", "rolled back": ""}


def test_a_journal_that_was_deleted_in_mlflow_is_restored(fresh):
    machine = fresh("1", "2")
    for experiment in machine.client.content.experiments.values():
        experiment.lifecycle_stage = "deleted"
    for run in machine.client.content.runs.values():
        run.info.lifecycle_stage = "deleted"
    assert roll_back(machine.another()) == ("2", "1")


def test_who_may_only_read_sees_a_decided_change_as_done(fresh):
    machine = fresh("1", "2")
    machine.kill_at(2)
    with pytest.raises(Killed):
        promote("3")(machine)
    reader = machine.another()

    def refuse(name: str, when: str) -> None:
        from mlflow_double import error

        raise error("PERMISSION_DENIED", name)

    reader.client.on_write = refuse
    assert machine.client.content.models[NAME].aliases == {CHAMPION: "2", PREVIOUS: "1"}
    assert reader.aliases(NAME) == {CHAMPION: "3", PREVIOUS: "2"}


@pytest.mark.parametrize("life", [ProcessStatus.RUNNING, ProcessStatus.UNKNOWN])
def test_a_process_that_may_still_work_is_waited_for(fresh, monkeypatch, life):
    """Its operation is completed by another process only after the grace time."""
    machine = fresh("1", "2")
    machine.kill_at(2)
    with pytest.raises(Killed):
        promote("3")(machine)
    now = [0.0]
    monkeypatch.setattr(module, "this_process", lambda: "another process")
    monkeypatch.setattr(module, "process_status", lambda identity: life)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        assert machine.client.content.models[NAME].aliases[CHAMPION] == "2"
        now[0] += seconds

    monkeypatch.setattr(module.time, "sleep", sleep)
    reader = machine.another()
    assert reader.aliases(NAME)[CHAMPION] == "3"
    assert now[0] == pytest.approx(module.GRACE_SECONDS, abs=1)


def test_a_process_that_finishes_while_it_is_waited_for_is_left_alone(fresh, monkeypatch):
    machine = fresh("1", "2")
    machine.kill_at(2)
    with pytest.raises(Killed):
        promote("3")(machine)
    machine.client.on_write = lambda *_: None
    monkeypatch.setattr(module, "process_status", lambda identity: ProcessStatus.RUNNING)
    here = module.this_process()
    reader = machine.another()

    def sleep(seconds: float) -> None:
        monkeypatch.setattr(module, "this_process", lambda: here)
        machine._settle(NAME, Journal(machine.client, machine.journal(NAME).run_id))
        monkeypatch.setattr(module, "this_process", lambda: "another process")

    monkeypatch.setattr(module, "this_process", lambda: "another process")
    monkeypatch.setattr(module.time, "sleep", sleep)
    assert reader.aliases(NAME) == {CHAMPION: "3", PREVIOUS: "2"}
    assert reader.client.writes == []


def test_a_reason_that_does_not_fit_changes_nothing(fresh):
    machine = fresh("1")
    with pytest.raises(Exception, match="at most 5500 fit"):
        machine.promote(NAME, "2", None, "x" * 6000)
    assert standing(machine.another()) == {CHAMPION: "1", "rolled back": ""}
