"""What the targets of this machine tell every step."""

import json

from components.launch import VARIABLE as LAUNCH
from components.lineage import VARIABLE as LINEAGE
from components.state import State
from model.config.resolution import resolve
from pipelines.profiles import STEPS, Profile, image_kind
from pipelines.targets import Target, make_target

IMAGES = {step: f"myxtts-python-{image_kind(step)}:content-{image_kind(step)}77" for step in STEPS}
TAGS = {"kfp.run_id": "run-7", "git.sha": "abc"}


def test_in_containers_the_image_of_training_is_part_of_the_lineage(tmp_path):
    config = resolve().config
    target = Target(Profile("docker", IMAGES, 0, launch=config.launch), config)
    told = target.told(State(tmp_path), TAGS)
    assert json.loads(told[LINEAGE]) == {**TAGS, "image": "myxtts-python-train:content-train77"}
    assert told["MYXTTS_STATE"] == str(tmp_path)


def test_subprocesses_have_no_image(tmp_path):
    told = make_target("local", resolve().config).told(State(tmp_path), TAGS)
    assert json.loads(told[LINEAGE]) == TAGS


def test_steps_are_told_of_a_launcher_other_than_their_own_process(tmp_path):
    assert LAUNCH not in make_target("local", resolve().config).told(State(tmp_path), TAGS)
    config = resolve(overrides={"launch.launcher": "torchrun", "launch.processes": 3}).config
    launch = json.loads(make_target("local", config).told(State(tmp_path), TAGS)[LAUNCH])["launch"]
    assert (launch["launcher"], launch["processes"]) == ("torchrun", 3)
