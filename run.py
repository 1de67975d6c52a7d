"""Train, evaluate and compare: `python run.py with task_finetune_mmimdb data_root=...`."""

import logging
import os
import sys
import warnings
from importlib import import_module
from typing import Any

warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # sacred 0.8.7 needs it
warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 against torch 2.13
warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # num_workers says so
warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # run.json lies there
warnings.filterwarnings("ignore", message=".*decompression bomb.*")  # refused in one line
warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")  # its sampler is
logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)

from clip.cli.arguments import check_arguments, flat  # noqa: E402  sacred warns when it is imported
from clip.config import ex  # noqa: E402
from clip.utils.errors import UserError  # noqa: E402
from clip.utils.files import DISK_FULL, NO_PERMISSION, describe_os_error  # noqa: E402

INTERRUPTED = 130  # as a shell tells a SIGINT


def guarded(command: str, config: dict[str, Any], run: Any, module: str = "cli.commands") -> None:
    """Call a command with checked settings; a mistake of the user ends it in one line."""
    # Only here: torch and Lightning take seconds to import, which --help should not.
    from pytorch_lightning.utilities import rank_zero_only

    from clip.cli.schema import validate

    function = getattr(import_module(f"clip.{module}"), command)

    if rank_zero_only.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the first process speaks for all
    defaults, settings = flat(ex.configurations[0]()), flat(config)
    given = {key for key in settings if settings[key] != defaults.get(key)}  # by presets too
    updates = run.meta_info["config_updates"]
    try:
        function(validate(config), given | set(updates) | set(flat(updates)))
    except UserError as error:
        # A loader process puts its traceback in front of the message; the last line is ours.
        last = str(error).strip().splitlines()[-1].removeprefix("clip.utils.errors.UserError: ")
        raise SystemExit(f"error: {last}") from None
    except OSError as error:
        if error.filename is None and error.errno not in (*DISK_FULL, *NO_PERMISSION):
            raise
        raise SystemExit(f"error: {describe_os_error(error)}") from None


@ex.main
def main(_config: dict[str, Any], _run: Any) -> None:
    """Fine-tune on a task, or score load_path on its test split with test_only=True."""
    guarded("evaluate" if _config["test_only"] else "train", _config, _run)


@ex.command
def sweep(_config: dict[str, Any], _run: Any) -> None:
    """Score load_path on a grid of test types and rates; writes sweep.csv and sweep.png."""
    guarded("sweep", _config, _run)


@ex.command
def reproduce(_config: dict[str, Any], _run: Any) -> None:
    """Do the runs of experiments, such as the paper's tables, that are not done yet; tables."""
    guarded("reproduce", _config, _run, "experiments")


@ex.command
def once(_config: dict[str, Any], _run: Any) -> None:
    """Train, then predict the validation and test splits, as one run of reproduce; never twice."""
    guarded("once", _config, _run, "experiments")


@ex.command
def predict(_config: dict[str, Any], _run: Any) -> None:
    """Classify image= and text=, either of which may be missing, or all of input= into output=."""
    guarded("predict", _config, _run, "inference")


@ex.command
def serve(_config: dict[str, Any], _run: Any) -> None:
    """Show what load_path predicts for an image and a text on a page of this machine's own."""
    guarded("serve", _config, _run, "inference")


@ex.command
def check(_config: dict[str, Any], _run: Any) -> None:
    """Print what a data set holds and draw a few samples, before anybody trains on it."""
    guarded("check", _config, _run, "inspection.check")


@ex.command
def pretrain(_config: dict[str, Any], _run: Any) -> None:
    """Train a small CLIP on the training pairs, for machines without a network."""
    guarded("pretrain", _config, _run)


@ex.command
def demo(_config: dict[str, Any], _run: Any) -> None:
    """Do the whole job in minutes on generated films: no network, no downloads, no GPU."""
    guarded("demo", _config, _run)


def command_line(argv: list[str]) -> None:
    """Run a command line, the program's name first."""
    try:
        check_arguments(argv[1:], ex)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    try:
        ex.run_commandline(argv)
    except KeyboardInterrupt:  # a training takes ctrl-C itself
        print("error: interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    command_line(sys.argv)
