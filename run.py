"""Train, evaluate and compare prompt methods: `python run.py with task_finetune_mmimdb data_root=...`."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # sacred 0.8.7 needs it
warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 with torch 2.13
warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # num_workers is the user's choice
warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # the frozen layers
warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # the run folder holds run.json already
warnings.filterwarnings("ignore", message=".*decompression bomb.*")  # refused with an error of ours
warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")  # its sampler is
logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)

from clip.cli import help as help_texts  # noqa: E402  after the filters
from clip.cli.arguments import check_arguments, expand_files, plugin_names  # noqa: E402
from clip.config import BaseConfig as Config  # noqa: E402
from clip.config import ex  # noqa: E402
from clip.utils.errors import UserError, loader_error  # noqa: E402
from clip.utils.files import describe_os_error  # noqa: E402

# What imports torch, which takes seconds, is imported where it is needed: help texts appear at once.
INTERRUPTED = 130  # exit status of a shell command ended by SIGINT
CLOSED_PIPE = 141  # by SIGPIPE, as in `python run.py costs | head -1`
COMMANDS: dict[str, Callable[[Config], Any]] = {}


def call(function: Callable[[Config], Any], values: dict[str, Any], updates: dict[str, Any]) -> None:
    """Call a command with validated settings; turn an error caused by user input into one line."""
    from clip.cli.schema import config_from_sacred

    try:
        function(config_from_sacred(values, updates))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to write
        raise SystemExit(CLOSED_PIPE) from None
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        raise SystemExit(f"error: {describe_os_error(error)}") from None
    except RuntimeError as error:
        if killed := loader_error(error):
            raise SystemExit(f"error: {killed}") from None
        raise


def command(function: Callable[[Config], Any]) -> Callable[[Config], Any]:
    """Register a function of the configuration as the command of its name, without the underscore."""
    name = function.__name__.removeprefix("_")

    def sacred_command(_config: dict[str, Any], _run: Any) -> None:
        call(function, _config, _run.meta_info["config_updates"])

    sacred_command.__name__, sacred_command.__doc__ = name, function.__doc__
    ex.command(sacred_command)
    COMMANDS[name] = function
    return function


@ex.main
def main(_config: dict[str, Any], _run: Any) -> None:
    """Fine-tune on a task, or evaluate load_path on its test split with test_only=True."""
    from clip.cli import commands

    call(commands.evaluate if _config["test_only"] else commands.train, _config, _run.meta_info["config_updates"])


@command
def _sweep(config: Config) -> None:
    """Evaluate one or several runs on a grid of missing types and rates; write a table and a figure."""
    from clip.cli import commands

    commands.sweep(config)


@command
def _reproduce(config: Config) -> None:
    """Run the unfinished runs of experiments, such as the paper's tables, and write their reports."""
    from clip.experiments.runner import reproduce

    reproduce(config)


@command
def _leaderboard(config: Config) -> None:
    """Compare all tested runs in log_dir, averaged over seeds, in one table; write it as csv and LaTeX."""
    from clip.experiments.leaderboard import leaderboard

    leaderboard(config)


@command
def _predict(config: Config) -> None:
    """Classify predict.image and predict.text, either of which may be missing, or all rows of predict.input."""
    from clip.inference.predict import predict

    predict(config)


@command
def _serve(config: Config) -> None:
    """Serve a local web page that shows the predictions of load_path for an image and a text."""
    from clip.inference.web import serve

    serve(config)


@command
def _check(config: Config) -> None:
    """Print what a data set holds and draw a few samples of each split before training on it."""
    from clip.cli import tools

    tools.check(config)


@command
def _costs(config: Config) -> None:
    """Print trainable parameters and FLOPs of every prompt method; no weights are needed."""
    from clip.evaluation.costs import print_costs

    print_costs(config)


@command
def _pretrain(config: Config) -> None:
    """Train a small CLIP on the training pairs, for machines without a network."""
    from clip.cli import tools

    tools.pretrain(config)


@command
def _demo(config: Config) -> None:
    """Run the whole pipeline in minutes on generated data: no network, no downloads, no GPU."""
    from clip.cli import tools

    tools.demo(config)


@command
def _print_config(config: Config) -> None:
    """Print the training settings with their help texts; what was set is marked by a star."""
    print(help_texts.config_text(config))


def command_line(argv: list[str]) -> None:
    """Run a command line, the program's name first."""
    words = argv[1:]
    if words[:1] == ["help"] and words[1:]:
        words = [words[1], "--help"] if words[1] in COMMANDS else words[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_texts.overview(COMMANDS, ex.named_configs))
        return
    if words[0] in COMMANDS and {"-h", "--help"} & set(words):
        print(help_texts.command_help(words[0], COMMANDS[words[0]]))
        return
    from clip.cli.schema import DEFAULTS, import_plugins

    try:
        words = expand_files(words)
        import_plugins(plugin_names(words))
        words = check_arguments(words, ex.commands, ex.named_configs, DEFAULTS)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    try:
        ex.run_commandline([argv[0], *words])
    except KeyboardInterrupt:  # training handles Ctrl-C itself
        print("error: interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for characters that the encoding cannot represent
    try:
        command_line(sys.argv)
        sys.stdout.flush()
    except BrokenPipeError:  # as in `python run.py print_config | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
