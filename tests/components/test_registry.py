import pytest

from components.registry import CHAMPION, PREVIOUS, Registry, RegistryError, model_name, parse_uri

NAME = "myxtts-toy-xtiny"


@pytest.fixture
def registry(state) -> Registry:
    """A registry with three versions of one model."""
    found = Registry(state)
    experiment = found.client.create_experiment("e", artifact_location=state.folder("mlartifacts", "e").as_uri())
    run = found.client.create_run(experiment)
    found.client.create_registered_model(NAME)
    for number in range(3):
        tags = {"measure.mel_cepstral_distortion": str(6.0 + number)}
        found.client.create_model_version(NAME, f"{run.info.artifact_uri}/voice", run_id=run.info.run_id, tags=tags)
    return found


def aliases(registry: Registry) -> tuple[str, str]:
    found = registry.aliases(NAME)
    return found.get(CHAMPION, ""), found.get(PREVIOUS, "")


def test_versions_come_newest_first_with_their_measures(registry):
    versions = registry.versions(NAME)
    assert [item.number for item in versions] == ["3", "2", "1"]
    assert versions[0].measures == {"mel_cepstral_distortion": 8.0}


def test_promotion_keeps_the_old_champion_as_previous(registry):
    registry.promote(NAME, "1", "", "first")
    assert aliases(registry) == ("1", "")
    registry.promote(NAME, "2", "1", "better")
    assert aliases(registry) == ("2", "1")
    assert "better" in registry.version(NAME, CHAMPION).tags["promoted"]


def test_promoting_the_champion_again_changes_nothing(registry):
    registry.promote(NAME, "1", "", "first")
    registry.promote(NAME, "2", "1", "better")
    registry.promote(NAME, "2", "2", "again")
    assert aliases(registry) == ("2", "1")


def test_equal_runs_that_promote_the_same_version_at_once_both_succeed(registry):
    registry.promote(NAME, "1", "", "first")
    for _ in range(2):
        registry.promote(NAME, "2", "1", "both compared with version 1")
    assert aliases(registry) == ("2", "1")


def test_rollbacks_walk_back_and_stop_at_the_first(registry):
    for number in ("1", "2", "3"):
        registry.promote(NAME, number, None, "next")
    assert registry.rollback(NAME, "clicks") == ("3", "2")
    assert aliases(registry) == ("2", "1")
    assert "clicks" in registry.version(NAME, "3").tags["rolled_back"]
    assert registry.rollback(NAME, "worse") == ("2", "1")
    assert aliases(registry) == ("1", "")
    with pytest.raises(RegistryError, match="no previous champion"):
        registry.rollback(NAME, "once more")


def test_promotion_by_hand_forgives_a_rollback(registry):
    registry.promote(NAME, "1", None, "first")
    registry.promote(NAME, "2", None, "second")
    registry.rollback(NAME, "mistaken")
    registry.promote(NAME, "2", None, "was right after all")
    assert "rolled_back" not in registry.version(NAME, "2").tags
    assert aliases(registry) == ("2", "1")


def test_a_champion_that_moved_since_the_comparison_stops_the_promotion(registry):
    registry.promote(NAME, "2", "", "meanwhile")
    with pytest.raises(RegistryError, match="compare again"):
        registry.promote(NAME, "3", "1", "compared with 1")
    assert aliases(registry) == ("2", "")


@pytest.mark.parametrize("failure", [RegistryError("silent"), KeyboardInterrupt()])
def test_a_failed_smoke_test_puts_everything_back(registry, failure):
    registry.promote(NAME, "1", "", "first")
    registry.promote(NAME, "2", "1", "second")

    def check(version):
        assert aliases(registry) == ("3", "2")
        raise failure

    with pytest.raises(type(failure)):
        registry.promote(NAME, "3", "2", "third", check)
    assert aliases(registry) == ("2", "1")
    assert "promoted" not in registry.version(NAME, "3").tags


def test_unknown_versions_and_models_are_named(registry):
    with pytest.raises(RegistryError, match="no version `9`; it has: 3, 2, 1"):
        registry.version(NAME, "9")
    for name in ("other", "o'brien", "a/b:c", ""):
        with pytest.raises(RegistryError, match=f"no model is named .*registered models: {NAME}"):
            registry.version(name, CHAMPION)


@pytest.mark.parametrize(
    ("uri", "expected"), [("models:/a-b@champion", ("a-b", "champion")), ("models:/a-b/3", ("a-b", "3"))]
)
def test_addresses_are_read(uri, expected):
    assert parse_uri(uri) == expected


@pytest.mark.parametrize("uri", ["a@champion", "models:/a", "models:/@champion", "models:/a@"])
def test_malformed_addresses_are_refused(uri):
    with pytest.raises(RegistryError, match="not a registered model"):
        parse_uri(uri)


def test_names_come_from_the_template():
    assert model_name("tts-{corpus}-{size}", "lj", "tiny") == "tts-lj-tiny"
    with pytest.raises(RegistryError, match=r"only \{corpus\} and \{size\}"):
        model_name("tts-{speaker}", "lj", "tiny")
    for unusable in ("team/{corpus}", "o'brien-{size}", ""):  # hours later MLflow would refuse it
        with pytest.raises(RegistryError, match="more than letters"):
            model_name(unusable, "lj", "tiny")


def test_models_beyond_the_first_page_are_listed(registry):
    for number in range(101):
        registry.client.create_registered_model(f"voice-{number}")
    assert len(registry.names()) == 102
