"""One's own data from a manifest to a report, through the command lines that DATA.md shows."""

import json
import re
import shutil

import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

import run
from tests.conftest import shell
from tests.own_data import SHAPES, shapes, write_manifest

COUNTS = {"train": 21, "dev": 14, "test": 14}
EXPERIMENT = """\
title: Shapes
base: {task: manifest, max_epoch: 1, val_check_interval: 1.0}
grid:
  method:
    none: {prompt_type: none}
read: {splits: [val, test]}
rows: [method]
columns: [split]
"""


def call(*arguments):
    run.command_line(["run.py", *map(str, arguments)])


def convert(folder, rows, name="mine.csv"):
    """The arrow files of a manifest, by the command line."""
    path = write_manifest(folder / name, rows)
    done = shell("--dataset", "manifest", "--root", path, "--target", folder / "arrow",
                 "--num_workers", 0, program="make_arrow.py")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "arrow"


@pytest.fixture(scope="module")
def arrow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    return convert(folder, shapes(folder, COUNTS))


@pytest.fixture(scope="module")
def common(settings, arrow):
    return ["task_finetune_manifest", *settings[1:], f"data_root={arrow}", "missing_ratio=0.7"]


@pytest.fixture(scope="module")
def trained(common, tmp_path_factory):
    log_dir = tmp_path_factory.mktemp("runs")
    done = shell("with", *common, f"log_dir={log_dir}", "max_epoch=1", "exp_name=own",
                 "val_check_interval=1.0")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^train +14 +4 +3 +5 ", done.stdout, re.MULTILINE)
    return log_dir / "own_dcp_train_both0.7_seed0/version_0"


def test_a_run_knows_its_classes(trained):
    model_config = json.loads((trained / "run.json").read_text())["model_config"]
    assert model_config["class_names"] == list(SHAPES)
    assert model_config["task_type"] == "multiclass"


def test_a_sweep_equals_tests_where_texts_never_existed(trained, common, tmp_path):
    where = ["with", *common, f"load_path={trained}", f"log_dir={tmp_path}", "exp_name=t"]
    call("sweep", *where)
    (csv,) = tmp_path.glob("t_dcp_sweep_*/version_0/sweep.csv")
    cells = pd.read_csv(csv)
    for kind, ratio in (("both", 0.0), ("image", 0.7), ("text", 1.0)):
        call(*where, "test_only=True", f"test_type={kind}", f"test_ratio={ratio}")
        (path,) = tmp_path.glob(f"t_dcp_test_{kind}{ratio:g}_seed0/version_0/metrics.json")
        found = json.loads(path.read_text())
        cell = cells[(cells.missing_type == kind) & (cells.missing_ratio == ratio)].iloc[0]
        assert found["missing_tables"]["test"] == cell["missing_table"]
        assert found["test/accuracy"] == pytest.approx(cell["accuracy"], abs=1e-6)
    again = ["with", *common, f"sweep.predictions={csv.parent}/predictions.arrow", "exp_name=p"]
    call("sweep", *again, f"log_dir={tmp_path}")
    (csv,) = tmp_path.glob("p_dcp_sweep_*/version_0/sweep.csv")
    pd.testing.assert_frame_equal(pd.read_csv(csv).drop(columns="run"), cells.drop(columns="run"))


def test_a_checkpoint_of_other_classes_is_refused_with_both(trained, settings, common, tmp_path):
    rows = [row | {"label": row["label"].replace("star", "moon")} for row in
            shapes(tmp_path, COUNTS)]  # fmt: skip
    other = ["with", *common, f"data_root={convert(tmp_path, rows)}", f"log_dir={tmp_path}"]
    call("sweep", "with", *common, f"load_path={trained}", f"log_dir={tmp_path}")
    (predictions,) = tmp_path.glob("**/predictions.arrow")
    for words in ([*other, "test_only=True", f"load_path={trained}"],
                  ["sweep", *other, f"sweep.predictions={predictions}"]):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            call(*words)
        message = str(ended.value)
        assert "class_names=['circle', 'square', 'star']" in message
        assert "class_names=['circle', 'moon', 'square']" in message
        assert "\n" not in message


def test_splits_of_different_manifests_are_refused(arrow, common, tmp_path):
    shutil.copytree(arrow, tmp_path / "mixed")
    other = convert(tmp_path, shapes(tmp_path, COUNTS, several=True), "many.parquet")
    shutil.copy(other / "test.arrow", tmp_path / "mixed")
    with pytest.raises(SystemExit, match="test.arrow has other classes than .*train.arrow"):
        call("with", *common, f"data_root={tmp_path}/mixed")


def test_multilabel_and_binary_manifests_train_and_test(settings, tmp_path):
    two = [row | {"label": int(row["label"] == "star")} for row in shapes(tmp_path, COUNTS)]
    kinds = {"F1_Macro": shapes(tmp_path, COUNTS, several=True), "AUROC": two}
    for headline, rows in kinds.items():
        root = convert(tmp_path / headline, [row | {"image": ""} for row in rows if row["text"]],
                       "mine.jsonl")  # fmt: skip
        place = ["with", "task_finetune_manifest", *settings[1:], f"data_root={root}",
                 f"log_dir={tmp_path / headline}"]  # fmt: skip
        call(*place, "max_steps=2", "prompt_type=none")
        call(*place, "test_only=True", f"load_path={tmp_path / headline}")
        (path,) = (tmp_path / headline).glob("*_test_*/version_0/metrics.json")
        assert 0 <= json.loads(path.read_text())[f"test/{headline}"] <= 1


SCORES = {  # headline -> (labels, names of the classes, their probabilities, predicted) -> score
    "accuracy": lambda labels, names, p, predicted: accuracy_score(labels, predicted),
    "AUROC": lambda labels, names, p, _: roc_auc_score([x == names[1] for x in labels], p[:, 1]),
    "F1_Macro": lambda labels, names, p, _: f1_score(
        [[name in x for name in names] for x in labels], p > 0.5, average="macro", zero_division=0
    ),
}


@pytest.mark.parametrize("headline", SCORES)
def test_predict_over_the_test_split_scores_as_the_test(headline, settings, tmp_path, capsys):
    """A manifest with cells that are really empty; what the model is told lacks is the same."""
    rows = shapes(tmp_path, COUNTS, several=headline == "F1_Macro")
    if headline == "AUROC":
        rows = [row | {"label": "star" if row["label"] == "star" else "round"} for row in rows]
    root, run_dir = convert(tmp_path, rows), tmp_path / "runs"
    place = ["with", "task_finetune_manifest", *settings[1:], f"data_root={root}",
             f"log_dir={run_dir}"]  # fmt: skip
    call(*place, "max_epoch=2", "val_check_interval=1.0", "exp_name=r", "learning_rate=0.05")
    (run_folder,) = run_dir.glob("r_*_train_*")
    call(*place, "test_only=True", f"load_path={run_folder}", "test_ratio=0.0", "exp_name=t")
    test = [row for row in rows if row["split"] == "test"]
    write_manifest(tmp_path / "test.csv", test)
    call("predict", "with", f"load_path={run_folder}", f"predict.input={tmp_path}/test.csv",
         f"predict.output={tmp_path}/out.csv", "num_gpus=0", "per_gpu_batchsize=5")  # fmt: skip
    assert "10 complete, 2 without text, 2 without image" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    names = list(found.columns[2:-2])
    score = SCORES[headline]([row["label"] for row in test], names, found[names].to_numpy(),
                             found["predicted"])  # fmt: skip
    (path,) = run_dir.glob("t_*/version_0/metrics.json")
    assert score == pytest.approx(json.loads(path.read_text())[f"test/{headline}"], abs=1e-6)
    assert 0 < score < 1


def test_validation_rows_of_one_class_are_refused_and_seen_in_a_check(settings, tmp_path, capsys):
    """No AUROC exists of them: whichever checkpoint came first would be called the best."""
    rows = [row | {"label": "star" if row["label"] == "star" else "round"} for row in
            shapes(tmp_path, COUNTS)]  # fmt: skip
    rows = [row for row in rows if row["split"] != "dev" or row["label"] == "star"]
    place = ["with", "task_finetune_manifest", *settings[1:],
             f"data_root={convert(tmp_path, rows)}", f"log_dir={tmp_path}/log"]  # fmt: skip
    with pytest.raises(SystemExit, match="the validation rows, all of one class, have no AUROC"):
        call(*place)
    assert not (tmp_path / "log").exists()
    call("check", *place)
    assert "round" in capsys.readouterr().out


def test_a_report_names_the_classes(common, tmp_path):
    (tmp_path / "shapes.yaml").write_text(EXPERIMENT)
    call("reproduce", "with", *common[1:], f"reproduce.experiment={tmp_path}/shapes.yaml",
         f"log_dir={tmp_path}")  # fmt: skip
    page = (tmp_path / "shapes/report.html").read_text()
    assert all(f">{name}<" in page for name in SHAPES)
