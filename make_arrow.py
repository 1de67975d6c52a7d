"""Convert a raw data set to arrow files, or download converted ones; see DATA.md.

Examples:
    python make_arrow.py --dataset mmimdb --root RAW --target OUT
    python make_arrow.py --dataset mmimdb --root RAW --target OUT --image_size 224
    python make_arrow.py --dataset manifest --root TABLE.csv --target OUT
    python make_arrow.py --download --target OUT
"""

import argparse
import math
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from clip.utils.command_line import format_command
from clip.utils.errors import UserError
from clip.utils.files import describe_os_error, expand_home
from clip.utils.images import square
from vilt.utils.image_pool import ImagePool

PUBLISHED = ("mmimdb", "food101", "hateful_memes")
PRESETS = {  # data set -> preset of run.py
    "mmimdb": "task_finetune_mmimdb",
    "food101": "task_finetune_food101",
    "hateful_memes": "task_finetune_hatememes",
    "manifest": "task_finetune_manifest",
}
MAX_WORKERS = 8


class OneLineParser(argparse.ArgumentParser):
    """Parser that reports errors in one line, as the rest of the program does."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit."""
        self.exit(2, f"error: {message}; --help lists the options\n")


def integer(minimum: int, text: str) -> int:
    """Parse an integer of at least ``minimum``."""
    if not text.isdecimal() or int(text) < minimum:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from {minimum} on")
    return int(text)


def path(text: str) -> Path:
    """Parse a path, with ~ for the home folder."""
    return Path(expand_home(text))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; options that do not fit together are errors."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", choices=PRESETS, help="data set; manifest is a table of your own data")
    add("--root", type=path, help="folder of the raw data, see DATA.md, or the manifest (.csv, .jsonl, .parquet)")
    add("--target", type=path, required=True, help="folder for the arrow files, created if necessary")
    image_size = "store pixels of this image size instead of image files: nothing to decode, for the same numbers"
    add("--image_size", type=partial(integer, 1), help=image_size)
    workers = "processes that decode images; 0 uses the main process (default: %(default)s)"
    add("--num_workers", type=partial(integer, 0), default=min(MAX_WORKERS, os.cpu_count() or 1), help=workers)
    shares = "shares of the rows of a manifest without a column split (default: 0.8 0.1 0.1)"
    add("--shares", type=float, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help=shares)
    add("--seed", type=partial(integer, 0), help="seed of the split that --shares draws (default: 0)")
    download = "download the converted files of --dataset, or of all three (20.7 GB), from TreezzZ/MoRA-data"
    add("--download", action="store_true", help=download)
    args = parser.parse_args(argv)
    if args.download and (args.root or args.image_size or args.dataset == "manifest"):
        parser.error("--download takes --dataset mmimdb, food101 or hateful_memes, and neither --root nor --image_size")
    if not args.download and not (args.dataset and args.root):
        parser.error("--dataset and --root are required without --download")
    if (args.shares or args.seed is not None) and args.dataset != "manifest":
        parser.error("--shares and --seed are for --dataset manifest only; the other data sets have their own splits")
    if args.shares and not (min(args.shares) > 0 and math.isclose(sum(args.shares), 1, abs_tol=1e-6)):
        parser.error(f"--shares are {args.shares}; they must be positive and sum to 1")
    return args


def make_arrow(args: argparse.Namespace) -> str:
    """Convert or download and return the summary table."""
    # Imported here: each worker process imports this file, and would load pyarrow and pandas.
    if args.download:
        from vilt.utils.download import download

        return download(args.target, [args.dataset] if args.dataset else PUBLISHED)
    from vilt.utils import write_food101, write_hatememes, write_manifest, write_mmimdb

    pool = ImagePool(partial(square, size=args.image_size) if args.image_size else None, args.num_workers)
    if args.dataset == "manifest":
        return write_manifest.make_arrow(args.root, args.target, pool, args.shares, args.seed)
    converters = {"mmimdb": write_mmimdb, "food101": write_food101, "hateful_memes": write_hatememes}
    return converters[args.dataset].make_arrow(args.root, args.target, pool)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; an error is one line, without a traceback."""
    args = parse_args(argv)
    # A terminated run exits like a failed one, so that no temporary file is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(make_arrow(args))
        check = format_command({"data_root": str(args.target)}, "check")
        for dataset in [args.dataset] if args.dataset else PUBLISHED:
            print("next:", check.replace(" with ", f" with {PRESETS[dataset]} ", 1))
    except FileExistsError as error:
        sys.exit(f"error: {error.filename} is a file; choose a folder")
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {describe_os_error(error)}")
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for characters that the encoding cannot represent
    main()
