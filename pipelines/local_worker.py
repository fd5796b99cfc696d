"""The process that runs one pipeline under KFP's local runner; `pipelines.local` starts and watches it.

It leads its own process group, and ends the whole group when its starter dies: the starter holds the other end of its
standard input.
"""

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the request (a JSON file named on the command line): pipeline file, arguments, folders."""
    signal.signal(signal.SIGINT, _interrupted)
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    watch = threading.Thread(target=_end_with_starter, args=(request,), name="starter-watch", daemon=True)
    watch.start()

    from kfp import components, local

    local.init(
        runner=_runner(request["containers"]),
        pipeline_root=request["pipeline_root"],
        workspace_root=None if request["containers"] else request["workspace"],
        enable_caching=True,
        cache_root=request["cache_root"],
    )
    pipeline = components.load_component_from_file(request["pipeline"])
    try:
        decision = pipeline(**request["arguments"]).output
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except RuntimeError as error:  # kfp.local's way to say that a task failed; the task has said why
        sys.stdout.write(f"{error}\n")
        raise SystemExit(1) from None
    os.replace(shutil.copyfile(decision.path, request["result"] + ".partial"), request["result"])


def _runner(containers: dict[str, Any]) -> Any:
    from kfp import local

    if not containers:
        return local.SubprocessRunner(use_venv=False)
    values = {name: os.environ[name] for name in containers["environment"]}
    return local.DockerRunner(**{**containers, "environment": values})


def _interrupted(*_: object) -> None:
    """A running step gets the same interrupt and fails once it has saved itself; only between steps is it ours.

    Setting a handler at all matters too: a shell that starts jobs in the background ignores interrupts for them, and
    the steps would inherit that.
    """
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        raise KeyboardInterrupt from None


def _end_with_starter(request: dict[str, Any]) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    if request["containers"]:  # they are the engine's children, not ours
        from pipelines.containers import stop

        stop(request["run"])
    os.killpg(os.getpgid(0), signal.SIGTERM)


if __name__ == "__main__":
    main()
