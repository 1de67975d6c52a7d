"""Converts a raw data set to arrow files, or downloads converted ones; see DATA.md.

Examples:
    python make_arrow.py --dataset mmimdb --root RAW --target OUT
    python make_arrow.py --dataset mmimdb --root RAW --target OUT --image_size 224
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

from clip.pixels import square
from vilt.utils.raw import RawDataError
from vilt.utils.reader import Reader

# By name: each worker process imports this file, and a writer would bring pyarrow into all of them.
WRITERS = {"mmimdb": "write_mmimdb", "food101": "write_food101", "hateful_memes": "write_hatememes"}
MOST_WORKERS = 8


def at_least(least: int, text: str) -> int:
    """Reads a whole number."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from {least} on")
    return int(text)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; what does not fit together ends the program with a usage line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset", choices=WRITERS, help="the data set; with --download: all three if not given"
    )
    parser.add_argument("--root", type=Path, help="folder of the raw data, laid out as in DATA.md")
    parser.add_argument(
        "--target", type=Path, required=True, help="folder for the arrow files, made if absent"
    )
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
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch files converted by others, with their missing tables, from the public data set "
        "TreezzZ/MoRA-data on Hugging Face (20.7 GB in all); an interrupted run goes on where it "
        "stopped; the licences of the data are yours to hold",
    )
    args = parser.parse_args(argv)
    if args.download and (args.root or args.image_size):
        parser.error("--download reads no raw data: leave --root and --image_size out")
    if not args.download and not (args.dataset and args.root):
        parser.error("--dataset and --root are required unless --download is given")
    return args


def make_arrow(args: argparse.Namespace) -> str:
    """Does what the command line asks and returns the closing table."""
    if args.download:
        # Only here: the client takes longer to import than a small data set to convert.
        from vilt.utils.download import download

        return download(args.target, [args.dataset] if args.dataset else list(WRITERS))
    writer = importlib.import_module(f"vilt.utils.{WRITERS[args.dataset]}")
    pixels = partial(square, size=args.image_size) if args.image_size else None
    return writer.make_arrow(args.root, args.target, Reader(pixels, args.num_workers))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; an error is one line, without a traceback."""
    args = parse_args(argv)
    # A terminated run leaves by the same door as a failed one, so that no temporary file stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(make_arrow(args))
    except FileExistsError as error:
        sys.exit(f"error: {error.filename} is a file; give a folder")
    except (RawDataError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted")


if __name__ == "__main__":
    main()
