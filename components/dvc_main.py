"""Runs DVC in this process, which ends when the process that started it dies: `python -m components.dvc_main ...`."""

import sys

from components.process_chain import end_with_parent

if __name__ == "__main__":
    end_with_parent("the command that runs DVC")
    from dvc.cli import main

    sys.exit(main(sys.argv[1:]))
