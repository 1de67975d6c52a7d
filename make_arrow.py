"""Converts a raw data set to arrow files, or downloads converted ones; see DATA.md.

Examples:
    python make_arrow.py --dataset mmimdb --root RAW --target OUT
    python make_arrow.py --dataset mmimdb --root RAW --target OUT --image_size 224
    python make_arrow.py --dataset manifest --root TABLE.csv --target OUT
    python make_arrow.py --download --target OUT
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from clip.utils.files import describe_os_error
from clip.utils.images import square
from vilt.utils.raw import RawDataError
from vilt.utils.reader import Reader

# By name: each worker process imports this file, and a writer would bring pyarrow into all of them.
WRITERS = {
    "mmimdb": "write_mmimdb",
    "food101": "write_food101",
    "hateful_memes": "write_hatememes",
    "manifest": "write_manifest",
}
DOWNLOADED = ("mmimdb", "food101", "hateful_memes")
DRAWN = ("manifest",)  # whose rows may come without splits
MOST_WORKERS = 8
ROUNDING = 1e-6


class OneLineParser(argparse.ArgumentParser):
    """Answers a wrong command line as the rest of the program does: in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        self.exit(2, f"error: {message}; --help lists the options\n")


def at_least(least: int, text: str) -> int:
    """Reads a whole number."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from {least} on")
    return int(text)


def share(text: str) -> float:
    """Reads a share of the rows."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number between 0 and 1")
    return value


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; what does not fit together ends the program."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset",
        choices=WRITERS,
        help="the data set, or manifest: a table of one's own data; with --download: all three "
        "published ones if not given",
    )
    parser.add_argument(
        "--root", type=Path,
        help="folder of the raw data, laid out as in DATA.md; of a manifest the file itself: "
        ".csv, .jsonl or .parquet",
    )  # fmt: skip
    parser.add_argument("--target", type=Path, required=True, help="folder for the arrow files, made if absent")
    parser.add_argument(
        "--image_size",
        type=partial(at_least, 1),
        help="store the pixels of each image, resized and cropped for a model of this image size, "
        "in place of the file: nothing is left to decode in training, and the same numbers arrive; "
        "for other image sizes they are not the original (default: store the bytes of the file)",
    )
    parser.add_argument(
        "--num_workers",
        type=partial(at_least, 0),
        default=min(MOST_WORKERS, os.cpu_count() or 1),
        help="processes that read and decode images; 0: none but this one (default: %(default)s)",
    )
    _add_split_options(parser)
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch files converted by others, with their missing tables, from the public data set "
        "TreezzZ/MoRA-data on Hugging Face (20.7 GB in all); an interrupted run goes on where it "
        "stopped; the licences of the data are yours to hold",
    )
    args = parser.parse_args(argv)
    if problem := _misfit(args):
        parser.error(problem)
    return args


def _add_split_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shares", type=share, nargs=3, metavar=("TRAIN", "VAL", "TEST"),
        help="of the rows of a manifest without a column split (default: 0.8 0.1 0.1)",
    )  # fmt: skip
    parser.add_argument("--seed", type=partial(at_least, 0), help="of the split that --shares draws (default: 0)")


def _misfit(args: argparse.Namespace) -> str | None:
    """Says what on a command line does not fit together."""
    if args.download and (args.root or args.image_size):
        return "--download reads no raw data: leave --root and --image_size out"
    if args.download and args.dataset not in (None, *DOWNLOADED):
        return f"--download fetches {', '.join(DOWNLOADED)}; for {args.dataset} give --root"
    if not args.download and not (args.dataset and args.root):
        return "--dataset and --root are required unless --download is given"
    if _split_options(args) and args.dataset not in DRAWN:
        return f"--shares and --seed are for {', '.join(DRAWN)}; other data sets have splits"
    if args.shares and abs(sum(args.shares) - 1) > ROUNDING:
        return f"--shares sum to {sum(args.shares):g}; they must sum to 1"
    return None


def _split_options(args: argparse.Namespace) -> dict[str, Any]:
    given = {"shares": args.shares, "seed": args.seed}
    return {name: value for name, value in given.items() if value is not None}


def make_arrow(args: argparse.Namespace) -> str:
    """Does what the command line asks and returns the closing table."""
    if args.download:
        # Only here: the client takes longer to import than a small data set to convert.
        from vilt.utils.download import download

        return download(args.target, [args.dataset] if args.dataset else list(DOWNLOADED))
    writer = importlib.import_module(f"vilt.utils.{WRITERS[args.dataset]}")
    pixels = partial(square, size=args.image_size) if args.image_size else None
    return writer.make_arrow(args.root, args.target, Reader(pixels, args.num_workers), **_split_options(args))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; an error is one line, without a traceback."""
    args = parse_args(argv)
    # A terminated run leaves by the same door as a failed one, so that no temporary file stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(make_arrow(args))
    except FileExistsError as error:
        sys.exit(f"error: {error.filename} is a file; give a folder")
    except RawDataError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {describe_os_error(error)}")
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
