"""The command predict: one image and text, or all of a table or a folder."""

import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from clip.inference.predictor import Predictor
from clip.inference.readers import Row, base_of, read_rows
from clip.inference.samples import MISSING, Sample
from clip.inference.writers import Write, check_output, written
from clip.utils.errors import UserError

MOST_THREADS = 8
SHOWN = 10  # classes of a printed table, and rows in a message
HEADS = {"complete": "image and text", "text": "image alone", "image": "text alone"}
Read = tuple[Row, Sample | UserError]


def predict(config: dict[str, Any], given: set[str]) -> None:
    """Print what ``load_path`` says of ``image`` and ``text``, or write it for all of ``input``.

    Raises:
        UserError: a setting or file is wrong, or rows of the input were skipped; the others are
            written even so.
    """
    one, many = bool(config["image"] or config["text"].strip()), bool(config["input"])
    if not config["load_path"]:
        raise UserError("predict needs load_path=, a checkpoint or the folder of a run")
    if one == many:
        raise UserError("predict needs image=, text= or both, or input= and neither of them")
    if one:
        predictor = Predictor.from_config(config, given)
        print(as_text(predictor, predictor.read(config["image"], config["text"], "")))
        return
    source, target = Path(config["input"]), Path(config["output"])
    check_output(target)
    rows = read_rows(source)
    first = list(islice(rows, 1))  # an input that cannot be read is told before the model loads
    predictor = Predictor.from_config(config, given)
    wanted = config["num_workers"]
    threads = min(MOST_THREADS, os.cpu_count() or 1) if wanted is None else max(1, wanted)
    samples = read_ahead(predictor, chain(first, rows), base_of(source), threads)
    with written(target) as write:
        counts, skipped = write_answers(predictor, samples, write)
    tell(counts, skipped, source, target)


def states_table(predictor: Predictor, sample: Sample) -> pd.DataFrame:
    """Answer for the states that can be made of a sample, as ``Predictor.predict`` does."""
    return predictor.answer(sample.states())


def as_text(predictor: Predictor, sample: Sample) -> str:
    """Lay out the likeliest classes of a sample in all states that can be made of it."""
    answers = states_table(predictor, sample)
    table = answers[predictor.class_names].T
    table.columns = [HEADS[state] for state in answers["missing"]]
    table = table.sort_values(table.columns[0], ascending=False, kind="stable").head(SHOWN)
    table = table.map("{:.1%}".format)
    table.loc["predicted"] = [names or "no class" for names in answers["predicted"]]
    return table.to_string()


def read_ahead(predictor: Predictor, rows: Iterable[Row], base: Path, threads: int) -> Iterator[list[Read]]:
    """Read batches of rows, the next one while the model is at work on the last.

    Args:
        predictor: its transform and batch size.
        rows: of ``read_rows``.
        base: folder that relative paths start from.
        threads: that decode images.

    Yields:
        Pairs of a row and its sample, or why it has none.
    """

    def read(row: Row) -> Read:
        place = f"row {row.number}"
        if row.fault:
            return row, UserError(f"{place}: {row.fault}")
        is_path = isinstance(row.image, str) and row.image
        try:
            return row, predictor.read(base / row.image if is_path else row.image, row.text, place)
        except UserError as error:
            return row, error

    rows = iter(rows)
    with ThreadPoolExecutor(threads) as pool:
        waiting = None
        while batch := [pool.submit(read, row) for row in islice(rows, predictor.batch_size)]:
            if waiting:
                yield [future.result() for future in waiting]
            waiting = batch
        if waiting:
            yield [future.result() for future in waiting]


def write_answers(
    predictor: Predictor, batches: Iterable[list[Read]], write: Write
) -> tuple[dict[str, int], list[int]]:
    """Answer batch by batch, and name the rows that cannot be answered on stderr.

    Returns:
        Answers by what is missing, and the numbers of the rows that were skipped.
    """
    counts, skipped = dict.fromkeys(MISSING, 0), []
    with tqdm(desc="predicting", unit="row", disable=None) as bar:
        for batch in batches:
            for row, fault in batch:
                if isinstance(fault, UserError):
                    skipped.append(row.number)
                    tqdm.write(f"skipped {fault}", file=sys.stderr)
            good = [pair for pair in batch if isinstance(pair[1], Sample)]
            if good:
                frame = predictor.answer([sample for _, sample in good])
                frame.insert(0, "row", [row.number for row, _ in good])
                frame.insert(1, "image", [_as_given(row.image) for row, _ in good])
                write(frame)
                for state, count in frame["missing"].value_counts().items():
                    counts[state] += count
            bar.update(len(batch))
    return counts, skipped


def _as_given(image: Any) -> str:
    """Give a path in letters that UTF-8 has: a file's name may hold any bytes."""
    path = image if isinstance(image, str) else ""
    return path.encode("utf-8", "backslashreplace").decode()


def tell(counts: dict[str, int], skipped: list[int], source: Path, target: Path) -> None:
    """Say what was written.

    Raises:
        UserError: rows were skipped; it numbers the first of them.
    """
    good = sum(counts.values())
    if good:
        print(f"{good} rows: {counts['complete']} complete, {counts['text']} without text, "
              f"{counts['image']} without image; written: {target}")  # fmt: skip
    if not good + len(skipped):
        raise UserError(f"input={source} holds no rows; nothing was written")
    if skipped:
        numbers = ", ".join(map(str, skipped[:SHOWN])) + ", …" * (len(skipped) > SHOWN)
        rest = f"the other {good} are in {target}" if good else "nothing was written"
        raise UserError(
            f"{len(skipped)} of {good + len(skipped)} rows were skipped (row {numbers}), as said above; {rest}"
        )
