"""The report of runs whose scores are known: complete, correct, self-contained and escaped."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_fscore_support

from clip.evaluation import bootstrap
from clip.evaluation.figures import draw
from clip.evaluation.predictions import CasePredictions
from clip.evaluation.report import title_of
from clip.experiments.report import average, write_report
from clip.missing.masks import MissingConfig, draw_mask
from clip.modules.objectives import TASKS
from clip.utils.errors import UserError
from tests.fabricated import SKILLS, experiment, fabricate

HOSTILE = "<script>alert('1')</script>"
VOID = {"meta", "br", "hr", "img", "input", "link"}
TABLE = pd.DataFrame({"method": list(SKILLS), "rate 70 %": ["1.00", "2.00", "3.00"]})
RESULTS = TABLE, pd.DataFrame({"method": [False] * 3, "rate 70 %": [False, False, True]})


class Page(HTMLParser):
    """Checks that elements are balanced, and keeps tags, attributes, text, and the rows of each section's table."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.open, self.attributes, self.tags, self.text, self.tables = [], [], set(), "", {}
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag == "h2":
            self.rows = self.tables[dict(attributes)["id"]] = []
        if tag == "tr":
            self.rows.append([])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    target = tmp_path_factory.mktemp("report")
    scores, folders, masks = fabricate(target, command=f"python run.py with exp_name={HOSTILE}")
    return scores, folders, masks, write_report(experiment(), scores, masks, RESULTS, folders, target / "out")


def read(path, name):
    header, *rows = Page(path).tables[name]
    return pd.DataFrame(rows, columns=header)


def test_the_page_is_complete_self_contained_and_escaped(made):
    path = made[-1]
    text = path.read_text(encoding="utf-8")
    page = Page(path)
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) == 6  # the command of each run
    assert "Curves & <b>cases</b>" in page.text
    assert "b" not in page.tags
    ids = {value for _, name, value in page.attributes if name == "id"}
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert value.startswith("data:image/svg+xml;base64,") if tag == "img" else value[1:] in ids
    assert {"link", "iframe", "object"}.isdisjoint(page.tags)
    assert not re.search(r"url\((?!#)|@import", text)
    assert text.index("<img") < text.index("<table")  # figures come first
    assert all(page.tables[name] for name in ("results", "cases", "classes", "intervals", "metrics", "costs", "masks"))


def test_scores_by_case_and_class_are_those_of_the_predictions(made):
    scores, folders, _, path = made
    task = TASKS["mmimdb"]
    found = [CasePredictions.load(folders[f"mmimdb-DCP-{s}"] / "test.arrow", "mmimdb", "test") for s in (0, 1)]
    by_case = np.array([[task.score(p.logits[case], p.labels)["F1_Macro"] for case in range(3)] for p in found])
    row = read(path, "cases").set_index("method").loc["DCP"]
    wanted = [f"{100 * seeds.mean():.2f} ± {100 * seeds.std(ddof=1):.2f}" for seeds in by_case.T]
    assert row[["complete", "missing text", "missing image"]].tolist() == wanted
    assert float(row["constant answer"]) == pytest.approx(100 * scores["constant_baseline"].iloc[0], abs=0.005)
    mask = draw_mask("mmimdb", "test", np.zeros(120), MissingConfig({"test": "both"}, {"test": 0.7}))
    first = []
    for predictions in found:
        predicted, true = predictions.select(mask)[:, 0] > 0, predictions.labels[:, 0] > 0
        first.append(float(2 * (predicted & true).sum() / (predicted.sum() + true.sum())))
    classes = read(path, "classes").set_index("class")
    assert int(classes["samples"]["class 0"]) == int(found[0].labels[:, 0].sum())
    assert float(classes["DCP"]["class 0"]) == pytest.approx(100 * np.mean(first), abs=0.005)
    assert (np.diff(classes[list(SKILLS)].astype(float).mean(axis=1)) < 0.02).all()  # best first
    own = scores[(scores["method"] == "MMP") & (scores["test_ratio"] == 0.7)]
    shown = read(path, "metrics").set_index("method").loc["MMP"]
    for name in ("F1_Macro", "F1_Micro", "F1_Samples", "F1_Weighted", "mAP"):
        assert shown[title_of(name)] == f"{100 * own[name].mean():.2f} ± {100 * own[name].std():.2f}"


def test_intervals_are_of_the_same_resamples(made):
    *_, folders, masks, path = made
    task, weights = TASKS["mmimdb"], bootstrap.resample(120)
    mask = draw_mask("mmimdb", "test", np.zeros(120), MissingConfig({"test": "both"}, {"test": 0.7}))
    drawn = {}
    for method in SKILLS:
        seeds = []
        for seed in (0, 1):
            found = CasePredictions.load(folders[f"mmimdb-{method}-{seed}"] / "test.arrow", "mmimdb", "test")
            seeds.append(bootstrap.resampled("F1_Macro", task, found.select(mask), found.labels, weights))
        drawn[method] = np.mean(seeds, axis=0)
    rows = read(path, "intervals").set_index(["method", "metric"])
    for method in SKILLS:
        row = rows.loc[method, "Macro F1"]
        low, high = 100 * np.quantile(drawn[method], [0.025, 0.975])
        assert row["test case"] == "missing both, rate 70 %"
        assert row["95 % interval"] == f"{low:.2f} to {high:.2f}"
        low, high = 100 * np.quantile(drawn[method] - drawn["Baseline"], [0.025, 0.975])
        gap = row["95 % interval of − Baseline"]
        assert gap == ("–" if method == "Baseline" else f"{low:+.2f} to {high:+.2f}")
    assert ("DCP", "mAP") in rows.index  # the main setting has every metric


def test_costs_masks_and_the_data_of_the_figure(made):
    scores, *_, path = made
    costs = read(path, "costs").set_index("method").loc["DCP"]
    names = ["trainable parameters", "share of all (%)", "seconds per step", "minutes of training", "peak memory (GiB)"]
    assert costs[names].tolist() == ["1,223", "0.815", "0.0625", "10", "–"]
    assert set(read(path, "masks")["SHA-256 of the mask"]) == {*scores["missing_table"], "cd" * 32}
    data = average(scores, ["test_type", "method", "test_ratio", "split"])
    assert len(data) == len(SKILLS) * 2
    mean = scores[(scores["method"] == "DCP") & (scores["test_ratio"] == 0.7)]["F1_Macro"].mean()
    (point,) = data[(data["method"] == "DCP") & (data["test_ratio"] == 0.7)].itertuples()
    assert point.mean == pytest.approx(100 * mean)
    assert point.published == 43


def test_a_table_of_several_tasks_has_bars_for_each(tmp_path):
    tasks = ("food101", "hatememes", "mmimdb")
    scores, folders, masks = fabricate(tmp_path, tasks, ratios=(0.7,), seeds=(0,), splits=("val", "test"))
    path = write_report(
        experiment(("task",), ("split", "method"), "none"), scores, masks, RESULTS, folders, tmp_path / "out"
    )
    assert len(list(path.parent.glob("figure_*.svg"))) == len(tasks) + 1  # and the missing cases
    intervals = read(path, "intervals").set_index(["task", "method", "metric"])
    for task in tasks:
        assert (task, "DCP", title_of(TASKS[task].headline)) in intervals.index
    assert len(read(path, "classes")) == 23  # of the main setting, MM-IMDb
    assert not path.with_name("confusion.csv").exists()


def test_everything_is_of_the_metric_that_is_evaluated(tmp_path):
    scores, folders, masks = fabricate(tmp_path, ratios=(0.7,), metric="mAP")
    path = write_report(experiment(metric="mAP"), scores, masks, RESULTS, folders, tmp_path / "out")
    own = 100 * scores[scores["method"] == "MMP"]["mAP"]
    assert average(scores, ["method"]).set_index("method")["mean"]["MMP"] == pytest.approx(own.mean())
    assert "mAP (%)" in path.with_name("figure_1.svg").read_text()
    cases = read(path, "cases").set_index("method")
    assert set(cases["metric"]) == {"mAP"}
    assert float(cases["constant answer"]["MMP"]) == pytest.approx(100 * scores["constant_baseline"].iloc[0], abs=0.005)
    assert "mAP" in set(read(path, "intervals")["metric"])
    found = [CasePredictions.load(folders[f"mmimdb-MMP-{s}"] / "test.arrow", "mmimdb", "test") for s in (0, 1)]
    (mask,) = masks.values()
    precision = [average_precision_score(p.labels[:, 0], p.select(mask)[:, 0]) for p in found]
    classes = read(path, "classes").set_index("class")
    assert float(classes["MMP"]["class 0"]) == pytest.approx(100 * np.mean(precision), abs=0.005)


def test_classes_and_their_confusion_are_those_of_scikit_learn(tmp_path):
    """DCP is the best method; its matrix is the mean over two seeds."""
    scores, folders, masks = fabricate(tmp_path, ("hatememes",), ratios=(0.7,))
    path = write_report(experiment(), scores, masks, RESULTS, folders, tmp_path / "out")
    found = [CasePredictions.load(folders[f"hatememes-DCP-{s}"] / "test.arrow", "hatememes", "test") for s in (0, 1)]
    (mask,) = masks.values()
    pairs = [(each.labels, each.select(mask).argmax(1)) for each in found]
    wanted = np.mean([precision_recall_fscore_support(*pair)[:3] for pair in pairs], axis=0)
    table = pd.read_csv(path.with_name("classes.csv")).set_index("method").loc["DCP"]
    assert table["class"].tolist() == ["class 0", "class 1"]
    assert pytest.approx(wanted) == table[["precision", "recall", "F1"]].to_numpy().T
    rows = Page(path).tables["classes"]
    assert {row[0]: row[-1] for row in rows[1:3]} == {f"class {i}": f"{100 * wanted[2][i]:.2f}" for i in (0, 1)}
    counts = np.mean([confusion_matrix(*pair) for pair in pairs], axis=0)
    written = pd.read_csv(path.with_name("confusion.csv")).set_index("method")
    assert written.loc["DCP"].set_index("true").to_numpy() == pytest.approx(counts)
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    assert [row[1:] for row in rows[-2:]] == [[f"{share:.0f}" for share in row] for row in shares]


def test_learning_curves_and_the_constant_answer_are_drawn(tmp_path):
    scores, folders, masks = fabricate(tmp_path, ratios=(0.7,), seeds=(0,))
    for folder in folders.values():
        (folder / "training/run/version_0").mkdir(parents=True)
        log = pd.DataFrame({"step": [4, 8], "val/F1_Macro": [0.25, 0.5]})
        log.to_csv(folder / "training/run/version_0/metrics.csv", index=False)
    write_report(experiment(), scores.assign(published=np.nan), masks, RESULTS, folders, tmp_path / "out")
    drawn = [(tmp_path / "out" / f"figure_{number}.svg").read_text() for number in (1, 2, 3)]
    assert ["step" in svg for svg in drawn] == [False, True, False]
    assert all("Macro F1 (%)" in svg for svg in drawn)
    assert "constant answer" in drawn[0]
    assert "published" not in drawn[0]


@pytest.mark.parametrize("curves", [True, False])
@pytest.mark.parametrize(("constant", "label"), [(79.0, "constant answer<"), (10.0, "constant answer: 10.0<")])
def test_a_constant_answer_far_below_the_scores_is_a_number_in_the_legend(constant, label, curves, tmp_path):
    points = pd.DataFrame({"panel": "", "series": "DCP", "x": [0, 70], "mean": [90.0, 80.0], "std": np.nan,
                           "published": np.nan, "constant_baseline": constant, "spread": ""})  # fmt: skip
    draw(points, "rate", "accuracy", curves, [tmp_path / "figure.svg"])
    assert label in (tmp_path / "figure.svg").read_text()


@pytest.mark.parametrize("name", ["run.json", "result.json"])
def test_an_empty_record_of_a_run_is_named(name, tmp_path):
    scores, folders, masks = fabricate(tmp_path, ratios=(0.7,), seeds=(0,))
    (folders["mmimdb-DCP-0"] / name).write_text("")
    with pytest.raises(UserError, match=f"mmimdb-DCP-0/{name}") as error:
        write_report(experiment(), scores, masks, RESULTS, folders, tmp_path / "out")
    assert "\n" not in str(error.value)
