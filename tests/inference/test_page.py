"""The report of runs whose scores are known: whole, true, sealed and harmless."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from clip.evaluation import bootstrap
from clip.evaluation.predictions import CasePredictions
from clip.experiments import figures
from clip.experiments.page import write_page
from clip.missing.masks import MissingConfig, draw_mask
from clip.modules.objectives import TASKS
from clip.utils.errors import UserError
from tests.fabricated import SKILLS, experiment, fabricate

HOSTILE = "<script>alert('1')</script>"
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Refuses unbalanced elements and keeps the rows of all tables, by section."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.attributes, self.tables, self.ids = [], [], {}, []
        self.section, self.text, self.tags = "", "", set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "h2":
            self.section = ""

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "h2" in self.open:
            self.section += data
            self.tables.setdefault(self.section, [])
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if "small" in self.open and "td" in self.open:
            self.rows[-1][-1] += f" [{data}]"

    @property
    def rows(self):
        return self.tables[self.section]

    def find(self, section, *start):
        """The cells of the row of a table that starts with these."""
        return next(r[len(start) :] for r in self.tables[section] if r[: len(start)] == [*start])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    target = tmp_path_factory.mktemp("page")
    cells, folders = fabricate(target, command=f"python run.py with exp_name={HOSTILE}")
    names = {"mmimdb": [HOSTILE, "Drama & more"]}
    path = write_page(experiment(), cells, folders, target / "out", names)
    return cells, folders, path, Page(path.read_text(encoding="utf-8"))


def test_the_page_is_whole_sealed_and_escaped(made):
    *_, path, page = made
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) == 6 + 1  # a command each, and the class
    assert "Curves & <b>cases</b>" in page.text
    assert "b" not in page.tags
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert value.startswith("#"), (tag, name, value)
    assert {"link", "iframe", "object", "img"}.isdisjoint(page.tags)
    assert not re.search(r"url\((?!#)|@import", path.read_text(encoding="utf-8"))
    assert len(page.ids) == len(set(page.ids))
    assert {value[1:] for _, name, value in page.attributes if name == "href"} <= set(page.ids)


def test_the_results_are_those_of_the_predictions(made):
    cells, *_, page = made
    for method in SKILLS:
        row = page.find("Results", "both", method)
        for text, ratio in zip(row, (0.0, 0.7), strict=True):
            own = 100 * cells[(cells["method"] == method) & (cells["test_ratio"] == ratio)].F1_Macro
            paper = 50 - 10 * ratio
            gap = f" [{paper:.2f} ({own.mean() - paper:+.2f})]" if method != "MMP" else ""
            assert text == f"{own.mean():.2f} ± {own.std():.2f}{gap}"
    assert "n = 2. Across: test_ratio." in page.text


def test_states_classes_and_metrics(made):
    cells, folders, _, page = made
    task = TASKS["mmimdb"]
    found = [CasePredictions.load(folders[f"mmimdb-DCP-{s}"] / "test.arrow", "mmimdb", "test")
             for s in (0, 1)]  # fmt: skip
    scores = [[task.score(p.logits[case], p.labels)["F1_Macro"] for case in range(3)]
              for p in found]  # fmt: skip
    wanted = [f"{100 * score:.2f}" for score in np.mean(scores, axis=0)]
    floor = f"{100 * cells['constant_baseline'].iloc[0]:.2f}"
    assert page.find("Scores by state", "DCP") == ["F1_Macro", *wanted, floor]
    table = draw_mask("mmimdb", "test", np.zeros(120), MissingConfig({"test": "both"}, {"test": 0.7}))
    first = []
    for predictions in found:
        named, true = predictions.select(table)[:, 0] > 0, predictions.labels[:, 0] > 0
        first.append(float(2 * (named & true).sum() / (named.sum() + true.sum())))
    support, *by_method = page.find("Scores by class", HOSTILE)
    assert support == str(int(found[0].labels[:, 0].sum()))
    assert by_method[2] == f"{100 * np.mean(first):.2f}"
    own = cells[(cells["method"] == "MMP") & (cells["test_ratio"] == 0.7)]
    shown = page.find("All metrics", "MMP", "test", "both 0.7")
    for text, name in zip(shown, ("F1_Macro", "F1_Micro", "F1_Samples", "F1_Weighted", "mAP"),
                          strict=True):  # fmt: skip
        assert text == f"{100 * own[name].mean():.2f} ± {100 * own[name].std():.2f}"


def test_intervals_are_of_the_same_resamples(made):
    _, folders, _, page = made
    task, weights = TASKS["mmimdb"], bootstrap.resample(120)
    table = draw_mask("mmimdb", "test", np.zeros(120), MissingConfig({"test": "both"}, {"test": 0.7}))
    drawn = {}
    for method in SKILLS:
        seeds = []
        for seed in (0, 1):
            path = folders[f"mmimdb-{method}-{seed}"] / "test.arrow"
            found = CasePredictions.load(path, "mmimdb", "test")
            args = (task, found.select(table), found.labels, weights)
            seeds.append(bootstrap.resampled("F1_Macro", *args))
        drawn[method] = np.mean(seeds, axis=0)
    for method in SKILLS:
        case, _, own, _, gap = page.find("Intervals", method, "F1_Macro")
        low, high = 100 * np.quantile(drawn[method], [0.025, 0.975])
        assert case == "both 0.7"
        assert own == f"{low:.2f} to {high:.2f}"
        low, high = 100 * np.quantile(drawn[method] - drawn["Baseline"], [0.025, 0.975])
        assert gap == ("–" if method == "Baseline" else f"{low:+.2f} to {high:+.2f}")
    assert page.find("Intervals", "DCP", "mAP")  # the main setting gets every metric


def test_costs_masks_and_the_data_behind_the_figure(made):
    cells, _, path, page = made
    assert page.find("Costs", "mmimdb", "DCP") == [
        "1,000", "200", "0", "23", "1,223", "0.82 %", "62.5", "–", "10.0", "1,234",
    ]  # fmt: skip
    shown = {row[3] for row in page.tables["Masks"][1:]}
    assert shown == {*cells["missing_table"], "cd" * 32}
    data = pd.read_csv(path.with_name("figure_1.csv"))
    assert len(data) == len(SKILLS) * 2
    mean = cells[(cells["method"] == "DCP") & (cells["test_ratio"] == 0.7)]["F1_Macro"].mean()
    (point,) = data[(data["method"] == "DCP") & (data["test_ratio"] == 0.7)].itertuples()
    assert point.mean == pytest.approx(100 * mean)
    assert point.published == 43


def test_costs_of_runs_that_train_different_things_are_not_averaged(tmp_path):
    """As in Table 5, whose columns are budgets that two methods reach."""
    cells, folders = fabricate(tmp_path, ratios=(0.7,), seeds=(0,))
    path = folders["mmimdb-DCP-0"] / "run.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"trainable": {"prompts.initial": 5}}))
    budgets = experiment(rows=("method",), columns=("budget",), figure="none")
    written = write_page(budgets, cells.assign(budget="1.6M"), folders, tmp_path)
    page = Page(written.read_text(encoding="utf-8"))
    assert page.find("Costs", "mmimdb", "MMP", "1.6M")[4] == "1,223"
    assert page.find("Costs", "mmimdb", "DCP", "1.6M")[4] == "5"


def test_a_table_alone_of_several_tasks(tmp_path):
    tasks = ("food101", "hatememes", "mmimdb")
    cells, folders = fabricate(tmp_path, tasks, ratios=(0.7,), seeds=(0,), splits=("val", "test"))
    table = experiment(rows=("task",), columns=("split", "method"), figure="none")
    path = write_page(table, cells, folders, tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    assert "svg" not in page.tags
    assert not list(tmp_path.glob("*.csv"))
    for task in tasks:
        row = page.find("Results", task)
        assert len(row) == 6
        score = cells[(cells["task"] == task) & (cells["split"] == "test")
                      & (cells["method"] == "DCP")][TASKS[task].headline]  # fmt: skip
        assert row[-1].startswith(f"{100 * score.item():.2f} [43.00 (")
        assert page.find("Intervals", task, "DCP", TASKS[task].headline)
    assert page.find("Scores by class", "class 0")  # of the main setting, MM-IMDb
    assert len(page.tables["Scores by class"]) == 1 + 23


def test_results_and_figures_are_of_the_metric_that_is_read(tmp_path):
    cells, folders = fabricate(tmp_path, ratios=(0.7,), metric="mAP")
    path = write_page(experiment(metric="mAP"), cells, folders, tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    (shown,) = page.find("Results", "both", "MMP")
    own = 100 * cells[cells["method"] == "MMP"]["mAP"]
    assert shown == f"{own.mean():.2f} ± {own.std():.2f}"
    assert "mAP in percent" in page.text
    assert "mAP (%)" in page.text
    data = pd.read_csv(path.with_name("figure_1.csv")).set_index("method")
    assert data["mean"]["MMP"] == pytest.approx(own.mean())


def test_masks_that_are_not_the_cells_give_no_intervals(tmp_path):
    cells, folders = fabricate(tmp_path, seeds=(0,), ratios=(0.7,))
    path = write_page(experiment(), cells.assign(missing_table="0" * 64), folders, tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.find("Intervals", "DCP", "") == ["both 0.7", "–", "–", "–", "–"]
    assert page.find("Scores by state", "DCP")[1] != "–"


def test_no_run_no_report(tmp_path):
    with pytest.raises(UserError, match="figure5 has no finished run"):
        write_page(experiment(), pd.DataFrame(), {}, tmp_path)


def test_curves_take_the_colours_of_the_page(made):
    *_, path, _ = made
    svg = path.read_text(encoding="utf-8").partition("<figure>")[2].partition("</figure>")[0]
    drawn = set(re.findall(r"#[0-9a-f]{6}\b", svg))
    assert drawn <= {"#ffffff"}, "a colour that a dark page cannot change"
    for number in range(len(SKILLS)):
        assert f"var(--c{number})" in svg
    assert "currentColor" in svg
    assert figures.INK not in svg
