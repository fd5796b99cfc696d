"""What runs the steps on this machine: subprocesses (`--target local`) or containers (`--target docker`)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.launch import VARIABLE as LAUNCH
from components.state import State
from model.config.resolution import ConfigError
from model.config.schema import Config
from model.config.vocoder import VocoderConfig
from pipelines.profiles import Profile, local_profile


@dataclass(frozen=True)
class Target:
    """What runs the steps on this machine.

    Attributes:
        profile: How they are compiled.
        config: Settings of the containers; `None` runs subprocesses.
    """

    profile: Profile
    config: Config | None = None

    def told(self, state: State, lineage: Mapping[str, str]) -> dict[str, str]:
        """Variables that every step gets."""
        tags = dict(lineage)
        if self.config is not None:
            tags["image"] = self.profile.images["train"]
        values = {"MYXTTS_STATE": str(state.root), "MYXTTS_LINEAGE": json.dumps(tags)}
        if self.profile.launch.launcher != "inline":
            values[LAUNCH] = json.dumps({"launch": self.profile.launch.model_dump()})
        return values

    def containers(self, state: State, run_id: str, told: Mapping[str, str]) -> dict[str, Any]:
        """Arguments of KFP's Docker runner; {} where steps are subprocesses."""
        if self.config is None:
            return {}
        from pipelines.containers import runner_arguments

        return runner_arguments(self.config.docker, state, run_id, told)

    def begin(self, state: State) -> None:
        """Just before the first step."""
        if self.config is not None:
            from pipelines.containers import container_user, hand_over

            hand_over(state, container_user(self.config.docker))

    def end(self, state: State, run_id: str, started: float) -> None:
        """However the run ended: no container outlives it, and what the engine says of them is kept."""
        if self.config is not None:
            from pipelines.containers import record_containers, stop

            stop(run_id)
            record_containers(state, run_id, started)


def make_target(name: str, config: Config) -> Target:
    """The target `local` or `docker` for these settings.

    Raises:
        ContainerError: the engine or an image is missing.
        ConfigError: the launcher needs a cluster, or there is no vocoder checkpoint where the settings say.
    """
    if name == "docker":
        from pipelines.containers import docker_profile

        return Target(docker_profile(config), config)
    _find_checkpoint(config.vocoder)
    return Target(local_profile(config.launch))


def _find_checkpoint(vocoder: VocoderConfig) -> None:
    """A mistyped path is said before hours of training, not after."""
    path = Path(vocoder.checkpoint).expanduser()
    if vocoder.checkpoint and "://" not in vocoder.checkpoint and not path.exists():
        raise ConfigError(
            f"vocoder.checkpoint: {path} is not there; name a folder of `myxtts vocoder` or an official file, or leave "
            "it empty to train from nothing"
        )
