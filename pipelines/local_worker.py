"""Process that runs one pipeline with KFP's local runner; `pipelines.local` starts and follows it.

It leads its own process group, and ends the whole group when the process that started it dies, which closes its
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
    """Runs the pipeline of the request, a JSON file given on the command line."""
    signal.signal(signal.SIGINT, _on_interrupt)
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    watch = threading.Thread(target=_end_with_parent, args=(request,), name="parent-watch", daemon=True)
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
    except RuntimeError as error:  # a task failed; the task itself has reported the reason
        sys.stdout.write(f"{error}\n")
        raise SystemExit(1) from None
    os.replace(shutil.copyfile(decision.path, request["result"] + ".partial"), request["result"])


def _runner(containers: dict[str, Any]) -> Any:
    """Returns KFP's runner for subprocesses or, with arguments for containers, for Docker."""
    from kfp import local

    if not containers:
        return local.SubprocessRunner(use_venv=False)
    values = {name: os.environ[name] for name in containers["environment"]}
    return local.DockerRunner(**{**containers, "environment": values})


def _on_interrupt(*_: object) -> None:
    """Raises KeyboardInterrupt between steps. A running step gets the same signal, saves its work and fails.

    The handler also keeps steps from inheriting an ignored SIGINT, which shells set for background jobs.
    """
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        raise KeyboardInterrupt from None


def _end_with_parent(request: dict[str, Any]) -> None:
    """Waits until the parent process dies, then ends the process group and the containers."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    if request["containers"]:  # children of the engine, not of this process
        from pipelines.containers import stop

        stop(request["run"])
    os.killpg(os.getpgid(0), signal.SIGTERM)


if __name__ == "__main__":
    main()
