"""The report of an experiment: one HTML file that needs nothing else, and a csv a figure."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from clip.experiments import figures, layout, records, sections
from clip.experiments.layout import Section
from clip.experiments.records import Compared, Record
from clip.experiments.schema import Experiment
from clip.modules.objectives import Task
from clip.utils.errors import UserError
from clip.utils.files import write_text

TEMPLATE = Path(__file__).with_name("page.html")


def write_page(
    experiment: Experiment,
    cells: pd.DataFrame,
    folders: Mapping[str, Path],
    target: Path,
    class_names: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write ``report.html``, and ``figure_<n>.csv`` behind each figure.

    Args:
        experiment: its title, source, axes and kind of figure.
        cells: of ``cells.collect``.
        folders: run -> its folder, with run.json, result.json, val.arrow and test.arrow.
        target: folder to write to.
        class_names: task -> names of its classes in their order; numbers where there are none.

    Returns:
        Path of the page.

    Raises:
        UserError: there is no cell.
    """
    if cells.empty:
        raise UserError(f"{experiment.name} has no finished run to report; start its runs first")
    known = records.read_records({run: folders[run] for run in cells["run"].unique()})
    what = records.compared(experiment, cells, known)
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent), autoescape=True,
        undefined=jinja2.StrictUndefined,
    ).get_template(TEMPLATE.name)  # fmt: skip
    text = page.render(
        title=experiment.title,
        source=experiment.source,
        facts=facts(what, cells, known),
        sections=[
            results(experiment, cells, known),
            *drawn(experiment, cells, known, target),
            *closer(what, cells, known, class_names or {}),
            sections.metrics(what, cells, known),
            sections.costs(what, cells, known),
            sections.masks(cells, known),
            sections.commands(what, cells, known),
        ],
    )
    return write_text(target / "report.html", text)


def _listed(values: Any) -> str:
    return ", ".join(dict.fromkeys(map(layout.name_of, values)))


def facts(what: Compared, cells: pd.DataFrame, known: Mapping[str, Record]) -> list[tuple[str, str]]:
    """Say when, from what code, with which backbone and how many runs."""
    about = [record.about for record in known.values()]
    identities = [one["model_config"] for one in about]
    now = datetime.datetime.now(datetime.UTC)
    return [
        ("Written", now.strftime("%Y-%m-%d %H:%M UTC")),
        ("Commit", _listed(one["git_commit"] for one in about)),
        ("Runs", f"{len(known)}, seeds {_listed(sorted(cells['seed'].unique()))}"),
        ("Compared", f"{what.axis}: {_listed(cells[what.axis])}"),
        ("Tasks", _listed(f"{r.task} ({r.goal.headline})" for r in known.values())),
        ("Weights", _listed(one.get("vit", "unknown") for one in identities)),
        ("Their SHA-256", _listed(one.get("backbone_sha256", "unknown") for one in identities)),
    ]


def results(experiment: Experiment, cells: pd.DataFrame, known: Mapping[str, Record]) -> Section:
    """Lay out the experiment's own table."""
    kinds = _listed(experiment.read.metric_of(record.goal) for record in known.values())
    text = f"{kinds} in percent: the mean ± the standard deviation over n seeds."
    if cells["published"].notna().any():
        text += " Small print: the published value, and ours less it."
    return Section("Results", text, tables=[layout.main_table(experiment, cells)])


def drawn(experiment: Experiment, cells: pd.DataFrame, known: Mapping[str, Record], target: Path) -> list[Section]:
    """Draw a figure for each task and write what is behind it; none for a table alone."""
    if experiment.figure == "none":
        return []
    of = cells["run"].map(lambda run: known[run].task)
    svgs, names = [], []
    for number, task in enumerate(dict.fromkeys(of), start=1):
        data = figures.points(experiment, cells[of == task])
        goal = next(record.goal for record in known.values() if record.task == task)
        metric = experiment.read.metric_of(goal)
        names.append(f"figure_{number}.csv")
        write_text(target / names[-1], data.to_csv(index=False))
        svgs.append(figures.draw(experiment, data, metric, number))
    text = (
        "Solid: ours, the mean over the seeds with its standard deviation. Dashed: published. "
        f"The numbers are in {_listed(names)} beside this page."
    )
    return [Section("Figures", text, figures=svgs)]


def closer(
    what: Compared,
    cells: pd.DataFrame,
    known: Mapping[str, Record],
    class_names: Mapping[str, Sequence[str]],
) -> list[Section]:
    """Look into the predictions: states, classes and intervals."""
    main = records.main_setting(what, cells, known)

    def wanted(setting: tuple[Any, ...], task: Task) -> list[str]:
        # Threshold-free scores must be sorted anew for each class: in the main setting alone.
        return records.resampled_metrics(task) if setting == main else [task.headline]

    found = records.read(what, cells, known, wanted)
    task = next(reading.task for reading in found if reading.setting == main)
    return [
        sections.states(what, found),
        sections.classes(what, found, main, class_names.get(task, ())),
        sections.intervals(what, found),
    ]
