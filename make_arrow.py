"""Converts a raw data set to arrow files, or downloads converted ones; see DATA.md.

Examples:
    python make_arrow.py --dataset mmimdb --root RAW --target OUT
    python make_arrow.py --download --target OUT
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from vilt.utils import write_food101, write_hatememes, write_mmimdb
from vilt.utils.raw import RawDataError

WRITERS = {"mmimdb": write_mmimdb, "food101": write_food101, "hateful_memes": write_hatememes}


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
        "--download",
        action="store_true",
        help="fetch files converted by others, with their missing tables, from the public data set "
        "TreezzZ/MoRA-data on Hugging Face (20.7 GB in all); an interrupted run goes on where it "
        "stopped; the licences of the data are yours to hold",
    )
    args = parser.parse_args(argv)
    if args.download and args.root:
        parser.error("--download reads no raw data: leave --root out")
    if not args.download and not (args.dataset and args.root):
        parser.error("--dataset and --root are required unless --download is given")
    return args


def make_arrow(args: argparse.Namespace) -> str:
    """Does what the command line asks and returns the closing table."""
    if args.download:
        # Only here: the client takes longer to import than a small data set to convert.
        from vilt.utils.download import download

        return download(args.target, [args.dataset] if args.dataset else list(WRITERS))
    return WRITERS[args.dataset].make_arrow(args.root, args.target)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; an error is one line, without a traceback."""
    args = parse_args(argv)
    # A terminated run leaves by the same door as a failed one, so that no temporary file stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(make_arrow(args))
    except (RawDataError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted")


if __name__ == "__main__":
    main()
