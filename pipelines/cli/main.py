"""The `myxtts` program: its commands, each imported only when it is called, and its exit status."""

import importlib
import os
import signal
import sys
import warnings
from typing import NoReturn

import click

from components.database_urls import make_absolute

COMMANDS = {
    "config": ("pipelines.cli.config:config", "Show and check settings."),
    "corpus": ("pipelines.cli.corpus:corpus", "Make, import, validate and describe speech corpora."),
    "features": ("pipelines.cli.features:features", "Extract the features that training reads from a corpus."),
    "train": ("pipelines.cli.train:train", "Train an acoustic model on features."),
    "vocoder": ("pipelines.cli.vocoder:vocoder", "Train, fine-tune, import and export neural vocoders."),
    "diagnose": ("pipelines.cli.diagnose:diagnose", "Find problems in settings, in a training run, in its speed."),
    "evaluate": ("pipelines.cli.evaluate:evaluate", "Compute a voice's metrics and write a listening report."),
    "synthesize": ("pipelines.cli.synthesize:synthesize", "Synthesize speech from text."),
    "run": ("pipelines.cli.run:run", "Run everything: from recordings to a registered voice."),
    "base": ("pipelines.cli.base:base", "Make and list the voices that trainings start from."),
    "pipeline": ("pipelines.cli.pipeline:pipeline", "Compile, run, watch and cancel training pipelines."),
    "study": ("pipelines.cli.study:study", "Search hyperparameters."),
    "registry": ("pipelines.cli.registry:registry", "List, compare, promote and roll back registered voices."),
}
"""Command -> (module and attribute, help text), so that `--help` imports none of the commands."""

FINDING, USAGE, INTERRUPTED = 1, 2, 130


class LazyGroup(click.Group):
    """Command group that imports a command only when it is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="myxtts")
def program() -> None:
    """MyXTTS: trains multilingual text-to-speech voices as a machine-learning pipeline.

    Exit status: 0 success, 1 a finding, a failed gate or run, 2 not started (usage, settings), 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the program and exits. An error that a user can fix becomes one line on standard error."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    tolerate_warnings_of_libraries()
    make_absolute()
    if os.environ.get("DVC_STAGE"):
        from components.process_chain import end_with_parent

        end_with_parent("DVC")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler stops programs so: clean up as after Ctrl-C
    try:
        answer = program.main(args=arguments, prog_name="myxtts", standalone_mode=False)
    except click.Abort:
        _fail("interrupted", INTERRUPTED)
    except click.NoSuchOption as error:
        error.show()
        _suggest_settings(error.option_name)
        sys.exit(USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader (`| head`) has closed the pipe: keep Python from writing to it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FINDING)
    except Exception as error:
        from components.failures import explain

        if not (message := explain(error)):
            raise
        _fail(message, getattr(error, "exit_code", USAGE))
    sys.exit(answer if isinstance(answer, int) else 0)


def tolerate_warnings_of_libraries() -> None:
    """Shows warnings that `PYTHONWARNINGS` or `-W` turns into errors: those of libraries would end a run.

    They are for developers of this program, whose tests have a filter of their own.
    """
    if any(option.startswith("error") for option in sys.warnoptions):
        warnings.simplefilter("default")
        os.environ["PYTHONWARNINGS"] = "default"


def _suggest_settings(flag: str) -> None:
    """Names the settings that an unknown flag could mean: most settings have no flag."""
    from pipelines.cli.options import settings_of_flag

    for key in settings_of_flag(flag):
        click.echo(f"This setting has no flag here: use --set {key}=VALUE", err=True)


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"myxtts: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
