"""The predict command: classify one pair, or every row of a table or image folder."""

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from clip.cli.build import output_folder
from clip.cli.schema import Config
from clip.engine.run_folder import make_version_dir
from clip.inference.predictor import MISSING, Predictor
from clip.inference.samples import Sample, read_sample
from clip.transforms import Transform
from clip.utils.errors import UserError, escape
from clip.utils.files import atomic_write
from clip.utils.images import FORMATS
from clip.utils.tables import read_table

SYNONYMS = (  # names of the image and the text column, case-insensitive; the first that exists is used
    ("image", "img", "image_path", "img_path", "file_name", "filename"),
    ("text", "caption", "sentence", "plot"),
)
WRITERS = {".csv": pd.DataFrame.to_csv, ".parquet": pd.DataFrame.to_parquet}
HEADS = {"complete": "image and text", "text": "image alone", "image": "text alone"}


def predict(config: Config) -> None:
    """Print the classes of ``predict.image`` and ``predict.text``, or write those of ``predict.input`` to a file.

    Rows that cannot be read are skipped, and a ``UserError`` is raised after the others have been written.
    """
    single = bool(config.predict.image or config.predict.text.strip())
    if single == bool(config.predict.input):
        raise UserError("predict needs predict.image, predict.text or both, or predict.input alone; set one of the two")
    if single:
        predictor = Predictor.from_config(config)
        print(format_cases(predictor, read_sample(config.predict.image, config.predict.text, predictor.transform)))
        return
    source, output = Path(config.predict.input), Path(config.predict.output)
    with reserve(output) if config.predict.output else contextlib.nullcontext():
        table = read_inputs(source)  # first, since loading the model takes seconds
        predictor = Predictor.from_config(config)
        workers = min(8, os.cpu_count() or 1) if config.num_workers is None else config.num_workers
        frame = classify_table(predictor, table, workers)
        if len(frame):
            if not config.predict.output:
                folder = output_folder(config) / f"predict_{source.resolve().stem}"
                output = make_version_dir(folder) / "predictions.csv"
            with atomic_write(output) as temporary:
                WRITERS[output.suffix.lower()](frame, temporary, index=False)
            counts = frame["missing"].value_counts().reindex(MISSING, fill_value=0).tolist()
            print("{} complete, {} without text, {} without image".format(*counts), f"written: {output}", sep="; ")
    if skipped := len(table) - len(frame):
        rest = f"the other {len(frame)} are in {output}" if len(frame) else "nothing was written"
        raise UserError(f"{skipped} of {len(table)} rows were skipped for the reasons above; {rest}")


@contextlib.contextmanager
def reserve(output: Path) -> Iterator[None]:
    """Check that an output file can be written and keep other processes from writing it."""
    if output.suffix.lower() not in WRITERS:
        raise UserError(f"predict.output={output} is not valid; give a name that ends in {' or '.join(WRITERS)}")
    lock = output.with_name(f".{output.name}.lock")
    try:
        with FileLock(lock, timeout=0):
            try:
                if output.exists():
                    raise UserError(f"predict.output={output} already exists; give another name or remove it")
                yield
            finally:
                lock.unlink()
    except Timeout:
        raise UserError(f"another process is writing predict.output={output}; give another name") from None


def read_inputs(path: Path) -> pd.DataFrame:
    """Read a table, or list the images in a folder and its subfolders: name (as given), image (path or bytes), text.

    The rows are numbered from 1.
    """
    if path.is_dir():
        known = Image.registered_extensions()
        files = (file for file in path.rglob("*") if known.get(file.suffix.lower()) in FORMATS)
        files = sorted(file for file in files if file.is_file() and not file.name.startswith("._"))  # macOS metadata
        images, texts = [str(file.relative_to(path)) for file in files], [None] * len(files)
    else:
        table = read_table(path)
        names = {name.lower(): name for name in reversed(table.columns)}
        used = [next((names[name] for name in synonyms if name in names), None) for synonyms in SYNONYMS]
        if not any(used):
            columns = ", ".join(table.columns) or "none"
            raise UserError(f"{path} has the columns {columns}; name one of them image or text")
        print("image column: {}; text column: {}".format(*(escape(name or "none") for name in used)))
        images, texts = (table[name].tolist() if name else [None] * len(table) for name in used)
    if not images:
        raise UserError(f"predict.input={path} has no rows or images; give another file or folder")
    folder = path if path.is_dir() else path.parent
    paths = [folder / image.strip() if isinstance(image, str) and image.strip() else image for image in images]
    # File names may be arbitrary bytes, but the output is UTF-8.
    given = [image.encode(errors="backslashreplace").decode() if isinstance(image, str) else "" for image in images]
    return pd.DataFrame({"name": given, "image": paths, "text": texts}, range(1, len(images) + 1), dtype=object)


def read_batch(rows: list[tuple], transform: Transform) -> dict[int, Sample | UserError]:
    """Read rows of ``read_inputs``; return by row the sample, or the error of one that cannot be read."""
    found = {}
    for row, _, image, text in rows:
        try:
            found[row] = read_sample(image, text, transform)
        except UserError as error:
            found[row] = error
    return found


def classify_table(predictor: Predictor, table: pd.DataFrame, workers: int) -> pd.DataFrame:
    """Return the predictions for the rows of ``read_inputs`` that can be read; report the others on stderr."""
    size, collate = predictor.batch_size, partial(read_batch, transform=predictor.transform)
    workers = min(workers, len(table) // size)  # no workers for a few rows
    loader = DataLoader([*table.itertuples(name=None)], size, num_workers=workers, collate_fn=collate)
    frames = [pd.DataFrame()]
    for batch in tqdm(loader, desc="predicting", unit="batch", disable=None):
        samples = {row: found for row, found in batch.items() if isinstance(found, Sample)}
        for row in sorted(batch.keys() - samples):
            tqdm.write(f"skipped row {row}: {batch[row]}", file=sys.stderr)
        if samples:
            frames.append(predictor.classify([*samples.values()]))
            frames[-1].insert(0, "row", [*samples])
            frames[-1].insert(1, "image", table.loc[[*samples], "name"].tolist())
    return pd.concat(frames, ignore_index=True)


def format_cases(predictor: Predictor, sample: Sample) -> str:
    """Format the ten likeliest classes of a sample in every missing case that can be derived from it."""
    predictions = predictor.classify(sample.cases())
    table = predictions[predictor.class_names].T
    table.columns = [HEADS[missing] for missing in predictions["missing"]]
    table = table.sort_values(table.columns[0], ascending=False, kind="stable").head(10).map("{:.1%}".format)
    table.loc["predicted"] = [names or "no class" for names in predictions["predicted"]]
    return table.rename(index=escape).map(escape).to_string()
