"""Project folders: `params.yaml`, `dvc.yaml` and the outputs of the data stages, the inputs of a pipeline run."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

import model
from components import dvc, lineage
from components.base_voice import AUTO, NONE, BaseVoice, base_languages, base_name, find_base, find_made_base
from components.data_versions import LATEST, DataRecords, DataVersion
from components.registry import model_name
from components.state import PROJECT_FILE, State, read_or_set_aside
from components.studies.identity import StudyArguments
from components.studies.space import search_space
from model.config.resolution import Resolved, flatten, nest, resolve
from model.config.schema import Config
from model.config.study import StudySettings
from model.corpus.readers import survey
from model.corpus.recordings import check_links, corpus_name, walk_folders
from model.diagnosis.checklist import checklist, refuse
from model.errors import MyXTTSError
from model.files import write_json, write_text
from pipelines.base_voices import ensure_base, spoken_languages
from pipelines.study_pipeline import study_arguments
from pipelines.training_pipeline import arguments

CORPUS = "data/corpus"
"""Output of the last data stage; a pipeline run gets its hash."""

REPORT = "data/validated/report.html"
"""Report of the stage `validate`, which runs show."""

IGNORE_FILE = ".dvcignore"
"""DVC refuses a dependency that contains such a file."""

logger = logging.getLogger(__name__)

DATA_SECTIONS = ("corpus", "validation", "split", "audio")
FOLLOW_LINKS = "corpus.follow_links"


class ProjectError(MyXTTSError):
    """A project folder cannot be created or used; the message says how to fix it."""


@dataclass(frozen=True)
class Project:
    """A folder in which DVC's stages run, and the settings of the runs that start from it.

    Attributes:
        folder: Folder of `params.yaml` and `dvc.yaml`.
        state: State folder, which receives the results.
        resolved: Settings, including those of the command line.
        params: Text of the `params.yaml` of a project folder in the state; '' for the root project.
        sources: `params.yaml`, settings file and overrides that `resolved` was made of.
        derived: Layers of `resolved` that follow from the base voice.
    """

    folder: Path
    state: State
    resolved: Resolved
    params: str = ""
    sources: tuple[Path | None, Path | None, Mapping[str, Any]] = (None, None, MappingProxyType({}))
    derived: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return self.resolved.config

    @property
    def model_name(self) -> str:
        return model_name(self.config.registry.name, self.config.corpus.name, self.config.model_size)

    def sync_dvc(self) -> None:
        """Configures DVC to use the cache of the state, and its remote unless the project has another one.

        Other settings of remotes in `.dvc/config.local` stay.
        """
        (self.folder / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
        settings = {
            "core": {"analytics": "false", "autostage": "false"},
            "cache": {"dir": str(self.state.dvc_cache), "type": "hardlink,symlink,copy"},
        }
        if not any((folder / ".git").exists() for folder in (self.folder, *self.folder.parents)):
            settings["core"]["no_scm"] = "true"
        if not self._has_remote():
            settings["core"]["remote"] = dvc.REMOTE
            settings[f"'remote \"{dvc.REMOTE}\"'"] = {"url": str(self.state.dvc_remote)}
        for section, values in dvc.read_config(self.folder, "config.local").items():
            kept = {key: value for key, value in values.items() if key != "url" or "://" in value}
            if section.startswith("'remote") and kept:  # credentials of the user, say
                settings[section] = {**settings.get(section, {}), **kept}
        dvc.write_config(self.folder, settings)

    def _has_remote(self) -> bool:
        """Returns whether the project's `.dvc/config` names a remote by a URL or an absolute path."""
        shared = dvc.read_config(self.folder, "config")
        remote = shared.get("core", {}).get("remote", "")
        url = shared.get(f"'remote \"{remote}\"'", {}).get("url", "")
        return "://" in url or Path(url).is_absolute()

    def make_data(self) -> None:
        """Runs the data stages that are out of date, and pushes their outputs to the remote.

        A clone without the recordings pulls the data that its `dvc.lock` records, if that is the data of its settings.
        A lock serializes runs of the same project, so that each makes the data of its own settings.
        """
        with self.state.lock(f"project-{self.folder.name}"):
            self.write_params()
            self.sync_dvc()
            if self.has_recordings():
                dvc.reproduce(self.folder, self.state)
                self.push()
            else:
                self.pull()

    def has_recordings(self) -> bool:
        """Returns whether the folder that the corpus is made from exists."""
        path = self.config.corpus.path
        return not path or (self.folder / path).exists()

    def pull(self) -> None:
        """Fetches the corpus that `dvc.lock` records.

        Raises:
            ProjectError: there is no lock, or it is of other settings.
            DvcError: the remote lacks the corpus.
        """
        missing = f"corpus.path: {self.folder / self.config.corpus.path} does not exist"
        if not (self.folder / "dvc.lock").is_file():
            raise ProjectError(
                f"{missing}; correct the path, or add the dvc.lock of a clone that has the recordings, to use its data"
            )
        digest = dvc.output_hash(self.folder, CORPUS)
        self.require_own_data()
        logger.warning("%s; using the data %s that dvc.lock records", missing, digest)
        dvc.pull(self.folder, self.state, CORPUS, digest)

    def write_params(self) -> None:
        """Writes the `params.yaml` of a project folder in the state, unless it has this content already."""
        path = self.folder / "params.yaml"
        if self.params and not (path.is_file() and path.read_text("utf-8") == self.params):
            write_text(path, self.params)

    def push(self) -> DataVersion:
        """Pushes the corpus, unless this hash was pushed to this remote before, and records it as the newest one.

        Raises:
            DvcError: the push failed, or the data stages have not been run.
        """
        remote, digest = dvc.remote_url(self.folder), dvc.output_hash(self.folder, CORPUS)
        record = self.state.root / "pushed.json"
        pushed = read_or_set_aside(record, dict[str, list[str]], {})
        if digest not in pushed.get(remote, []) or not ("://" in remote or Path(remote).is_dir()):
            dvc.push(self.folder, self.state)
            write_json(record, {**pushed, remote: [*pushed.get(remote, []), digest]})
        return self.record_data(latest=True)

    def record_data(self, latest: bool = False) -> DataVersion:
        """Records the corpus on its remote, for runs that read it when they start.

        Args:
            latest: Whether `data: latest` means this version from now on.

        Raises:
            ManifestError: the corpus is not on this machine.
        """
        remote, digest = dvc.remote_url(self.folder), dvc.output_hash(self.folder, CORPUS)
        version = DataVersion.of(digest, self.folder / CORPUS)
        records = DataRecords(remote, dvc.s3_options(self.folder))
        records.write(version, self.config.corpus.name if latest else "")
        if (report := self.folder / REPORT).is_file():
            records.write_report(digest, report)
        return version

    def require_pushed(self) -> None:
        """Refuses data that a cluster could not fetch.

        Raises:
            ProjectError: the remote is a folder of this machine, or lacks the corpus.
            DvcError: the remote does not answer.
        """
        self.sync_dvc()
        remote = dvc.remote_url(self.folder)
        if "://" not in remote:
            raise ProjectError(
                f"a cluster cannot fetch data from {remote}, a folder of this machine; set a remote that it reaches "
                f"(`dvc remote modify {dvc.REMOTE} url s3://<bucket>/<prefix>`) and `dvc push`"
            )
        answer = dvc.run(self.folder, self.state, "status", "--cloud", "--json", CORPUS)
        if waiting := json.loads(answer or "{}"):
            raise ProjectError(
                f"{len(waiting)} of the corpus's objects are not in {remote}; run `dvc push` in {self.folder} first"
            )

    def require_sound(self) -> None:
        """Refuses dangerous settings before the data is made, since that may take long.

        Raises:
            BaseVoiceError: `training.start_from` names no voice.
            ChecklistError: the checklist has an error.
            RegistryError: the name of the model is not valid, or the registry lacks the voice to start from.
        """
        refuse(checklist(self.config))
        _ = self.model_name  # raises RegistryError
        if self.config.training.start_from != AUTO:
            find_base(self.config.training.start_from, self.state)

    def require_space(self) -> None:
        """Refuses a search space that a study cannot have, before the data is made.

        Raises:
            SpaceError: `study.space` names no setting that can be searched, or an impossible range.
        """
        search_space(StudySettings.of(self.config))

    def with_base(self, make: Callable[[Mapping[str, Any]], None] | None = None) -> "Project":
        """Returns the project with the settings that follow from its base voice, pinned to a version and its weights.

        Args:
            make: Runs a pipeline with the given settings, to make the base voice of `auto` if there is none yet;
                without it the training then starts from scratch.

        Raises:
            BaseVoiceError: `training.start_from` names no voice.
            ManifestError: the data are not made yet.
        """
        wanted = self.config.training.start_from
        if wanted == NONE:
            return self
        base, languages, seconds = None, set[str](), 0.0
        if self.needs_base:
            languages, seconds = spoken_languages(self.folder / CORPUS)
            base = self._automatic_base(languages, make) if wanted == AUTO else find_base(wanted, self.state)
        params, config_file, overrides = self.sources
        pinned = {"training.start_from": base.uri if base else NONE}
        if base:
            pinned["training.start_from_sha256"] = base.weights_sha256
        derived = base.layers(languages, seconds) if base else {}
        return replace(self, resolved=resolve(params, config_file, {**overrides, **pinned}, derived), derived=derived)

    @property
    def needs_base(self) -> bool:
        """Whether training starts from another voice, if there is one: `auto` means none for generated speech."""
        wanted = self.config.training.start_from
        return wanted not in (NONE, AUTO) or (wanted == AUTO and self.config.corpus.format != "generated")

    def _automatic_base(
        self, languages: set[str], make: Callable[[Mapping[str, Any]], None] | None
    ) -> BaseVoice | None:
        chosen, size = base_languages(languages), self.config.model_size
        if make is None:
            found = find_made_base(self.state, chosen, size)
        else:
            launch = flatten({"launch": self.config.launch.model_dump(mode="json")})
            found = ensure_base(self.state, chosen, size, lambda settings: make({**launch, **settings}))
        if found is None:
            logger.warning(
                "there is no base voice %s, so training starts from scratch; `myxtts base make --languages %s "
                "--model-size %s` makes it, and --start-from none omits this warning",
                base_name(chosen, size), ",".join(chosen), size,
            )  # fmt: skip
        return found

    def require_own_data(self) -> None:
        """Refuses data that was made with other settings than those of this run.

        Raises:
            ProjectError: `dvc.lock` records other parameters.
        """
        text = self.params or (self.folder / dvc.PARAMETERS).read_text("utf-8")
        wanted = yaml.safe_load(text) or {}
        for key, recorded in dvc.recorded_parameters(self.folder).items():
            made, now = (flatten({key: value}) for value in (recorded, _value_of(wanted, key)))
            for name in sorted(made.keys() | now.keys()):
                if made.get(name) != now.get(name):
                    raise ProjectError(
                        f"the data in {self.folder} was made with {name} = {_shown(made, name)}, but the settings say "
                        f"{_shown(now, name)}; make it again with the same options (`myxtts run` or "
                        f"`myxtts study run`, or `dvc repro && dvc push` in {self.folder}), or change the setting back"
                    )

    def run_arguments(self, latest: bool = False) -> dict[str, str]:
        """Returns the arguments of the pipeline: the hash of the data in `dvc.lock`, and the settings.

        Args:
            latest: Use the data that are the newest when the run starts.

        Raises:
            ChecklistError: the checklist has an error.
            DvcError: the data stages have not been run.
            ProjectError: the data was made with other settings.
        """
        digest, project = self._with_data()
        if project.config.training.start_from != NONE:
            self.record_data()  # steps and learning rate depend on the amount of speech
        data = LATEST if latest else digest
        return arguments(project.config, data, dvc.remote_url(self.folder), project.model_name, project.derived)

    def study_arguments(self) -> StudyArguments:
        """Returns the arguments of the pipeline of a study with these settings and this data.

        Raises:
            SpaceError: `study.space` names no setting that can be searched.
            ChecklistError, DvcError, ProjectError: as for `run_arguments`.
        """
        digest, project = self._with_data()
        return study_arguments(project.config, digest, dvc.remote_url(self.folder), project.model_name)

    def _with_data(self) -> "tuple[str, Project]":
        """Returns the hash of the data in `dvc.lock`, and the project with the settings of its base voice."""
        self.require_sound()
        digest = dvc.output_hash(self.folder, CORPUS)
        self.require_own_data()
        return digest, self.with_base()

    def page_defaults(self) -> dict[str, str]:
        """Returns the arguments that the page of Kubeflow Pipelines suggests: those of `params.yaml`, latest data.

        Settings of the command line are left out, so that each run does not make another version of the pipeline.
        """
        config = resolve(self.sources[0]).config.model_copy(update={"corpus": self.config.corpus})
        return arguments(config, LATEST, dvc.remote_url(self.folder))

    def lineage(self, run_id: str) -> dict[str, str]:
        """Returns the lineage tags of a run of this project, and archives the files that they identify by hash."""
        return lineage.collect(self.folder, Path(__file__).parent, run_id, self.state.folder("lineage"))


def open_project(
    data: Path | None = None, config_file: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Project:
    """Opens the project of a command.

    It is the root project (the nearest folder with a `dvc.yaml`), unless `data` is given or other settings change the
    data: then it is a project folder in the state, with a `params.yaml` of its own, and the root's files do not change.

    Args:
        data: Folder of recordings in a known layout, or of several such corpora.
        config_file: Settings that override `params.yaml`.
        overrides: Settings by dotted key.

    Raises:
        ProjectError: `data` is not a folder, or the current folder is in no project.
        ConfigError: a setting is not valid.
    """
    root = find_root()
    overrides = dict(overrides or {})
    state = State.locate(root).prepare()
    if data is not None:
        follow_links = resolve(root / "params.yaml", config_file, overrides).config.corpus.follow_links
        recorded = _recorded(data, state, "corpus.format" in overrides, follow_links)
        overrides = {**recorded, **overrides, FOLLOW_LINKS: recorded[FOLLOW_LINKS]}
    sources = (root / "params.yaml", config_file, overrides)
    layered = resolve(*sources)
    base = resolve(root / "params.yaml")
    if _data_settings(layered.config) == _data_settings(base.config):
        return Project(root, state, layered, sources=sources)
    folder = state.folder("projects", layered.config.corpus.name)
    with state.lock(f"project-{folder.name}"):  # another process may be making its data
        project = Project(folder, state, layered, _write_project(root, folder, layered), sources)
        project.write_params()
    return project


def find_root() -> Path:
    """Returns the nearest folder with a `dvc.yaml`, from the current folder upwards.

    Raises:
        ProjectError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder
    raise ProjectError(f"{here} is in no project (no {PROJECT_FILE} here or above); change into the checkout first")


def _recorded(data: Path, state: State, known_format: bool, follow_links: bool) -> dict[str, Any]:
    """Returns the corpus settings of a folder of recordings, with a project name that no other folder uses."""
    folder = data.expanduser().resolve()
    if not folder.is_dir():
        raise ProjectError(f"{data} is not a folder; give the folder that holds the recordings and their transcripts")
    if known_format and not follow_links:
        check_links(folder)
    found = {"path": str(folder)} if known_format else survey(folder, follow_links)
    name = corpus_name(folder.name)
    project = state.root / "projects" / name
    if _is_of_another(project, Path(found["path"])):
        name = f"{name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"
        project = state.root / "projects" / name
    path = followable(Path(found["path"]), project)
    follow_links = follow_links or str(path) != found["path"]  # then they are links that `followable` made
    return {**flatten({"corpus": {**found, "path": str(path)}}), "corpus.name": name, FOLLOW_LINKS: follow_links}


def _is_of_another(project: Path, recordings: Path) -> bool:
    """Returns whether the project of this name belongs to another folder of recordings."""
    params = project / "params.yaml"
    if not params.is_file():
        return False
    known = yaml.safe_load(params.read_text("utf-8")).get("corpus", {}).get("path", "")
    return known not in (str(recordings), str(mirror_of(recordings, project)))


def _value_of(values: Any, key: str) -> Any:
    """Returns the value of a dotted key in nested settings; {} if it is missing."""
    for name in key.split("."):
        values = values.get(name, {}) if isinstance(values, dict) else {}
    return values


def _shown(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else "nothing"


def _data_settings(config: Config) -> dict[str, Any]:
    return config.model_dump(include=set(DATA_SECTIONS))


def _write_project(root: Path, folder: Path, resolved: Resolved) -> str:
    """Writes or updates a project folder in the state, without its params.yaml, whose text is returned."""
    stages = root / PROJECT_FILE
    _copy_if_changed(stages, folder / PROJECT_FILE)
    _link_code(folder)
    values = flatten(resolved.config.model_dump(mode="json"))
    preset = ("default", "model size", "level")
    chosen = {
        key: values[key]
        for key, origin in resolved.origins.items()
        if not origin.startswith(preset)
        or key.partition(".")[0] in DATA_SECTIONS  # DVC requires the parameters of its stages in the file
    }
    if resolved.config.corpus.format == "generated":
        chosen["corpus.path"] = _copy_sentences(root / (resolved.config.corpus.path or "model/corpus"), folder)
    text = "# Written by `myxtts run`; edit the params.yaml of the checkout instead.\n"
    text += yaml.safe_dump(nest(chosen), allow_unicode=True, sort_keys=True)
    dvc.write_config(folder, dvc.read_config(root, "config") | {"core": _own_core(root)}, "config")
    return text


def _link_code(project: Path) -> None:
    """Links the code of the data stages into a project, where its dvc.yaml expects it."""
    link, code = project / model.__name__, Path(model.__file__).parent
    if not link.is_symlink() or link.readlink() != code:
        link.unlink(missing_ok=True)
        link.symlink_to(code)
    ignored = project / IGNORE_FILE
    if not ignored.is_file():
        write_text(ignored, "__pycache__\n")


def _copy_sentences(source: Path, project: Path) -> str:
    """Copies the sentence lists of a generated corpus into the project: DVC reads ignore files only there."""
    lists = sorted(source.glob("sentences_*.txt"))
    if not lists:
        raise ProjectError(f"{source} contains no sentences_<language>.txt; set corpus.path to a folder that does")
    (project / "sentences").mkdir(exist_ok=True)
    for path in lists:
        _copy_if_changed(path, project / "sentences" / path.name)
    return "sentences"


def _copy_if_changed(source: Path, target: Path) -> None:
    if not target.is_file() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)


def _own_core(root: Path) -> dict[str, str]:
    """Returns the `core` section of the root's DVC configuration, for a folder outside of git."""
    return {**dvc.read_config(root, "config").get("core", {}), "no_scm": "true", "analytics": "false"}


def followable(recordings: Path, project: Path) -> Path:
    """Returns a folder of the recordings that DVC can hash: without broken links and ignore files.

    It is the folder itself if it has neither, else a folder of links in `project`, updated at every call. Files that
    are left out are missing there, so that `ingest` reports them.

    Args:
        recordings: Absolute path.
        project: Folder for the links.
    """
    kept = {path.relative_to(recordings): path for path, fits in _files(recordings) if fits}
    if all(fits for _, fits in _files(recordings)):
        return recordings
    mirror = mirror_of(recordings, project)
    mirror.mkdir(parents=True, exist_ok=True)
    for path, _ in _files(mirror):
        relative = path.relative_to(mirror)
        if relative not in kept or path.readlink() != kept[relative]:
            path.unlink()
    for relative, path in kept.items():
        link = mirror / relative
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return mirror


def mirror_of(recordings: Path, project: Path) -> Path:
    """Returns the folder for the links to the files of `recordings`."""
    return project / f"recordings-{hashlib.sha256(str(recordings).encode()).hexdigest()[:6]}"


def _files(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yields the files below a folder and whether DVC can hash each; linked folders are entered, each once."""
    for root, _, files in walk_folders(folder):
        for name in files:
            path = root / name
            yield path, path.is_file() and name != IGNORE_FILE
