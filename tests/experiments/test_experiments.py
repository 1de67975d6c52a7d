"""Experiments as data: what the files hold, how they become runs and tables."""

import copy
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from clip.cli.schema import validate
from clip.experiments import available, load_experiment
from clip.experiments.plan import Planned, changes, defaults, departures, overrides, put, resolve
from clip.experiments.tables import as_markdown, table
from clip.utils.command_line import flatten, format_command, to_cli_args
from clip.utils.errors import UserError

RUNS = {"table1": 8, "table2": 8, "table3": 8, "table4": 3 * 3 * 3 * 5, "table5": 6 + 5,
        "table7": 18, "table8": 5, "figure3": 3 * 4 * 7, "figure4": 6, "figure5": 3}  # fmt: skip
VALUES = RUNS | {"table4": 270, "table5": 12, "figure4": 14 * 6, "figure5": 21}
HAND_TYPED = [  # from the paper, not from the files
    ("table1", ("generator", "Fc"), 53.76),
    ("table1", ("depth", 12), 53.86),
    ("table1", ("source", "own modality"), 53.52),
    ("table2", ("depth", 3), 53.76),
    ("table2", ("generator", "min pool"), 53.35),
    ("table3", ("depth", 6), 54.52),
    ("table3", ("projection", "MLP r=4"), 54.36),
    ("table4", ("mmimdb", 70, "both", "DCP", "test"), 51.42),
    ("table4", ("mmimdb", 70, "both", "MMP", "val"), 51.34),
    ("table4", ("food101", 50, "image", "DePT", "test"), 82.14),
    ("table4", ("hatememes", 90, "text", "CoOp", "val"), 58.02),
    ("table5", ("DCP", "0.2M"), 53.14),
    ("table5", ("MMP", "6.4M"), 50.46),
    ("table7", ("food101", "image", "DCP"), 86.76),
    ("table7", ("hatememes", "text", "MMP"), 59.11),
    ("table8", (48,), 54.12),
    ("figure3", ("image", "Ours (B)", 90), 54.0),
    ("figure3", ("text", "Baseline", 100), 43.3),
    ("figure4", ("both 50 %", "image", 0.7), 55.3),
    ("figure4", ("text 70 %", "text", 1.0), 53.2),
    ("figure5", ("MMP", "both", 0.3), 52.4),
]
SMALL = {
    "title": "A title",
    "source": "Table 0",
    "base": {"task": "mmimdb"},
    "grid": {"method": {"none": {"prompt_type": "none"}, "DCP": {"prompt_type": "dcp"}}},
    "read": {"splits": ["val", "test"]},
    "rows": ["method"],
    "columns": ["split"],
    "published": [{"method": "DCP", "split": "val", "value": 50}],
}


def written(folder, **changes):
    """SMALL in a file, with some keys changed or, if None, taken out."""
    content = {k: v for k, v in (copy.deepcopy(SMALL) | changes).items() if v is not None}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_every_experiment_of_the_paper_is_there_whole():
    assert set(available()) == set(RUNS)
    loaded = {name: load_experiment(name) for name in available()}
    assert {name: len(each.runs) for name, each in loaded.items()} == RUNS
    assert {name: len(each.published) for name, each in loaded.items()} == VALUES
    for name, place, value in HAND_TYPED:
        assert loaded[name].published[place] == value, (name, place)


@pytest.mark.parametrize("name", sorted(RUNS))
def test_every_run_of_the_paper_has_valid_settings(name):
    experiment = load_experiment(name)
    configs = [resolve(experiment, run, {}) for run in experiment.runs]
    for run, config in zip(experiment.runs, configs, strict=True):
        for key, value in {**experiment.base, **run.settings}.items():
            found = flatten(config).get(key, config[key.split(".")[0]])
            assert value in (found, *(found.values() if isinstance(found, dict) else ())), key


def test_table_4_says_what_its_cells_say():
    experiment = load_experiment("table4")
    run = next(r for r in experiment.runs if tuple(r.at.values()) == ("hatememes", 90, "text", "DCP"))
    config = resolve(experiment, run, {})
    assert config["task"] == "hatememes"
    assert config["missing_ratio"] == dict.fromkeys(("train", "val", "test"), 0.9)
    assert set(config["missing_type"].values()) == {"text"}
    assert config["val_check_interval"] == 0.11


def test_a_group_of_settings_keeps_those_it_does_not_name(tmp_path):
    """In a file as by their long names: the same settings, so that a run is known by one key."""
    groups = {"dcp": {"generator": "fc"}, "missing_ratio": {"train": 0.2}}
    configs = []
    for base in (groups, flatten(groups)):
        experiment = load_experiment(str(written(tmp_path, base=SMALL["base"] | base)))
        configs.append(resolve(experiment, experiment.runs[0], {}))
    assert configs[0] == configs[1]
    assert configs[0]["dcp"] == defaults()["dcp"] | {"generator": "fc"}
    assert configs[0]["missing_ratio"] == {"train": 0.2, "val": 0.7, "test": 0.7}


def test_figure_5_trains_on_complete_data():
    experiment = load_experiment("figure5")
    config = resolve(experiment, experiment.runs[0], {})
    assert config["simulate_missing"] is True
    assert config["missing_ratio"] == {"train": 0.0, "val": 0.7, "test": 0.7}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"titel": "x"}, ["titel is unknown"]),
        ({"title": None}, ["title is missing"]),
        ({"title": 3}, ["title=3", "a text"]),
        ({"grid": None}, ["one of grid and runs"]),
        ({"runs": []}, ["one of grid and runs"]),
        ({"grid": None, "runs": []}, ["no runs"]),
        ({"grid": {"method": {}}}, ["grid.method"]),
        ({"grid": {"method": {"a": 1}}}, ["grid.method.a=1"]),
        ({"grid": {"seed": {"a": {}}}}, ["seed", "column"]),
        ({"grid": None, "runs": [{"at": {"a": 1}}]}, ["runs[0].settings is missing"]),
        ({"grid": None, "runs": [{"at": {"a": 1}, "settings": {}} for _ in "12"]}, ["two runs"]),
        ({"read": {"splits": ["dev"]}}, ["read.splits", "val, test"]),
        ({"read": {"splits": ["val"], "cases": {"types": ["text"]}}}, ["read.cases.ratios"]),
        (
            {"read": {"splits": ["val"], "cases": {"types": ["text"], "ratios": [70]}}},
            ["read.cases.ratios=[70]", "0 to 1"],
        ),
        ({"rows": ["method", "split"]}, ["rows and columns", "split"]),
        ({"columns": []}, ["rows and columns"]),
        ({"figure": "pie"}, ["figure='pie'", "curves"]),
        (
            {"figure": "curves", "rows": [], "columns": ["method", "split"], "published": []},
            ["figure=curves", "rows"],
        ),
        ({"published": [{"method": "DCP", "value": 1}]}, ["published[0]", "split"]),
        ({"published": [{"method": "DPC", "split": "val", "value": 1}]}, ["method='DPC'"]),
        ({"published": [{"method": "DCP", "split": "val", "value": "?"}]}, ["value='?'"]),
        (
            {"published": copy.deepcopy(SMALL["published"]) + SMALL["published"]},
            ["published[1]", "second"],
        ),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_key(changes, words, tmp_path):
    path = written(tmp_path, **changes)
    with pytest.raises(UserError) as refusal:
        load_experiment(path)
    message = str(refusal.value)
    assert "\n" not in message
    assert str(path) in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("text", ["title: [", "- a", "", "\x00"])
def test_what_is_no_experiment_at_all_is_one_line(text, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=r"x\.yaml") as refusal:
        load_experiment(tmp_path / "x.yaml")
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="table4"):
        load_experiment("table44")


def test_a_setting_that_does_not_exist_is_named_with_its_experiment(tmp_path):
    for base, words in (({"max_epoh": 3}, "max_epoch"), ({"max_epoch": "3"}, "max_epoch='3'")):
        experiment = load_experiment(written(tmp_path, base=base))
        with pytest.raises(UserError, match=f"small at method none: .*{words}"):
            resolve(experiment, experiment.runs[0], {})


def test_users_win_over_the_base_and_coordinates_over_users(tmp_path):
    path = written(tmp_path, base={"missing_ratio": 0.5, "max_epoch": 3})
    experiment = load_experiment(path)
    users = {"missing_ratio.train": 0.9, "max_epoch": 7, "prompt_type": "dcp"}
    config = resolve(experiment, experiment.runs[0], users)
    assert config["missing_ratio"] == {"train": 0.9, "val": 0.5, "test": 0.5}
    assert config["max_epoch"] == 7
    assert config["prompt_type"] == "none"


def test_only_what_the_user_gave_goes_over_the_base():
    config = defaults()
    put(config, "missing_ratio.train", 0.9)
    put(config, "max_epoch", 20)  # the default, but typed
    put(config, "jobs", 3)
    given = {"missing_ratio", "missing_ratio.train", "max_epoch", "jobs"}
    assert overrides(validate(config), given) == {"missing_ratio.train": 0.9, "max_epoch": 20}
    with pytest.raises(UserError, match=r"seeds=\[0\]"):
        overrides(validate(config), {"seed"})
    with pytest.raises(UserError, match="test_ratio=0.5"):
        overrides(validate(config | {"test_ratio": 0.5}), {"test_ratio"})


def test_typed_words_are_read_back_as_the_same_values():
    settings = {"vit": "2024", "data_root": "a b", "unfreeze": ["ln_post"], "max_steps": None,
                "missing_ratio": {"train": 0.5}, "learning_rate": 1e-5}  # fmt: skip
    assert to_cli_args(settings) == ["vit='2024'", "data_root=a b", "unfreeze=['ln_post']",
                               "max_steps=None", "missing_ratio.train=0.5",
                               "learning_rate=1e-05"]  # fmt: skip
    assert format_command({"data_root": "a b"}, "once") == "python run.py once with 'data_root=a b'"
    config = validate(defaults() | {"missing_ratio": 0.5, "seed": 3})
    again = defaults()
    for key, value in changes(config).items():
        put(again, key, value)
    assert changes(config).keys() == {
        "seed",
        *(f"missing_ratio.{s}" for s in ("train", "val", "test")),
    }
    assert flatten(validate(again)) == flatten(config)


def test_a_table_has_means_deviations_published_values_and_holes(tmp_path):
    experiment = load_experiment(written(tmp_path))
    runs = [Planned(run.at, "", seed, {}, "", tmp_path) for run in experiment.runs
            for seed in (0, 1)]  # fmt: skip
    cells = pd.DataFrame({"method": "DCP", "split": ["val", "val", "test"], "seed": [0, 1, 0],
                          "score": [0.51, 0.53, 0.4]})  # fmt: skip
    made = table(experiment, cells, runs)
    assert made.columns.tolist() == ["method", "val ours", "val paper", "test ours", "test paper"]
    deviation = math.sqrt(2)  # of 51 and 53
    assert made.to_numpy().tolist() == [
        ["none", "", "", "", ""],
        ["DCP", f"52.00 ± {deviation:.2f}", "50.00", "40.00", ""],
    ]
    assert as_markdown(made).splitlines()[3] == "| DCP | 52.00 ± 1.41 | 50.00 | 40.00 |  |"
    empty = table(experiment, pd.DataFrame(), runs)
    assert np.all(empty["val ours"] == "")
    unheard = replace(experiment, published={})
    assert table(unheard, cells, runs).columns.tolist() == ["method", "val ours", "test ours"]


def test_settings_that_go_over_an_experiments_own_are_named():
    table8 = load_experiment("table8")
    users = {"missing_ratio.train": 0.5, "missing_ratio.val": 0.7, "max_epoch": 3}
    assert departures(table8, users) == ["missing_ratio.train=0.7"]
