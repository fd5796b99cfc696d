"""The `myxtts` program: a table of commands, each imported only when it is called, and one way to fail."""

import importlib
import os
import signal
import sys
from typing import Any

import click

COMMANDS = {
    "config": ("pipelines.cli.config:config", "Settings: their values, origins and checks."),
    "corpus": ("pipelines.cli.corpus:corpus", "Make, import, validate and describe speech corpora."),
    "features": ("pipelines.cli.features:features", "Turn a corpus into the shards that training reads."),
    "train": ("pipelines.cli.train:train", "Train an acoustic model on features."),
    "vocoder": ("pipelines.cli.vocoder:vocoder", "Train, fine-tune, import and export neural vocoders."),
    "diagnose": ("pipelines.cli.diagnose:diagnose", "Find what is wrong with settings, a run, its speed."),
    "evaluate": ("pipelines.cli.evaluate:evaluate", "Measure a voice and write a listening report."),
    "synthesize": ("pipelines.cli.synthesize:synthesize", "Speak a text with a voice."),
    "run": ("pipelines.cli.run:run", "The whole way: recordings to a registered voice that speaks."),
    "pipeline": ("pipelines.cli.pipeline:pipeline", "Compile, run and list training pipelines."),
    "study": ("pipelines.cli.study:study", "Search hyperparameters."),
    "registry": ("pipelines.cli.registry:registry", "List, compare, promote and roll back models."),
}
"""Command -> (where it is, what help says): the help must not import what the commands need."""

FINDING, USAGE, INTERRUPTED = 1, 2, 130


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for by name."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="myxtts")
def program() -> None:
    """MyXTTS: trains multilingual text-to-speech voices as a machine-learning pipeline.

    Exit status: 0 good, 1 a finding or a failed gate, 2 a usage or configuration error.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the program and exit; an error that a user can mend becomes one line, an interrupt status 130."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stopped by a scheduler: end as after Ctrl-C, tidied up
    try:
        answer = program.main(args=arguments, prog_name="myxtts", standalone_mode=False)
    except click.Abort:
        _fail("interrupted", INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader (`| head`) has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FINDING)
    except Exception as error:
        from components.failures import explain

        if not (told := explain(error)):
            raise
        _fail(told, getattr(error, "exit_code", USAGE))
    sys.exit(answer if isinstance(answer, int) else 0)


def _fail(message: str, status: int) -> None:
    click.echo(f"myxtts: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
