"""Experiments as data: what the files hold, how they become runs, keys and tables."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import yaml

from clip.cli.schema import DEFAULTS, Config, config_from_sacred, make_config
from clip.experiments.plan import (
    PlannedRun,
    check_only,
    key_of,
    masks_of,
    plan,
    print_conflicts,
    resolve,
    user_settings,
)
from clip.experiments.spec import available, load_experiment
from clip.experiments.tables import layout, to_latex, to_markdown
from clip.utils.command_line import flatten
from clip.utils.errors import UserError
from tests import tiny

RUNS = {"table1": 8, "table2": 8, "table3": 8, "table4": 3 * 3 * 3 * 5, "table5": 6 + 5}
RUNS |= {"table6": 18, "table7": 18, "table8": 5, "figure3": 3 * 4 * 7, "figure4": 6, "figure5": 3}
RUNS |= {"field": 11 * 2 * 3 * 3 * 3, "robust": 11 * 3 * 3}
VALUES = RUNS | {"table4": 270, "table5": 12, "figure4": 14 * 6, "figure5": 21, "field": 52, "robust": 0}
HAND_TYPED = [  # from the papers, not from the files
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
    ("table6", ("mmimdb", "image", "DCP"), 55.12),
    ("table6", ("hatememes", "both", "Baseline"), 57.82),
    ("table7", ("food101", "image", "DCP"), 86.76),
    ("table7", ("hatememes", "text", "MMP"), 59.11),
    ("table8", (48,), 54.12),
    ("figure3", ("image", "Ours (B)", 90), 54.0),
    ("figure3", ("text", "Baseline", 100), 43.3),
    ("figure4", ("both 50 %", "image", 0.7), 55.3),
    ("figure4", ("text 70 %", "text", 1.0), 53.2),
    ("figure5", ("MMP", "both", 0.3), 52.4),
    ("field", ("food101", 90, "image", "dummy", "AOEPT"), 87.03),
    ("field", ("hatememes", 70, "text", "dummy", "Baseline"), 62.7),
    ("field", ("hatememes", 70, "both", "dummy", "LoRA"), 67.97),
    ("field", ("mmimdb", 50, "text", "zero", "DPL"), 56.94),
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
    """SMALL in a file, with some keys changed or, if None, removed."""
    content = {k: v for k, v in (copy.deepcopy(SMALL) | changes).items() if v is not None}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_every_experiment_is_complete():
    loaded = {name: load_experiment(name) for name in available()}
    assert {name: len(each.runs) for name, each in loaded.items()} == RUNS
    assert {name: len(each.published_values) for name, each in loaded.items()} == VALUES
    for name, place, value in HAND_TYPED:
        assert loaded[name].published_values[place] == value, (name, place)


@pytest.mark.parametrize("name", sorted(RUNS))
def test_every_run_has_valid_settings(name):
    experiment = load_experiment(name)
    for run in experiment.runs:
        config = resolve(experiment, run, {}).model_dump()
        for key, value in {**experiment.base, **run.settings}.items():
            found = flatten(config).get(key, config[key.split(".")[0]])
            assert value in (found, *(found.values() if isinstance(found, dict) else ())), key


def test_coordinates_become_settings():
    table4, figure5 = load_experiment("table4"), load_experiment("figure5")
    run = next(r for r in table4.runs if tuple(r.at.values()) == ("hatememes", 90, "text", "DCP"))
    config = resolve(table4, run, {})
    assert (config.task, config.val_check_interval) == ("hatememes", 0.11)
    assert config.missing_ratio == dict.fromkeys(("train", "val", "test"), 0.9)
    assert set(config.missing_type.values()) == {"text"}
    config = resolve(figure5, figure5.runs[0], {})
    assert config.simulate_missing is True
    assert config.missing_ratio == {"train": 0.0, "val": 0.7, "test": 0.7}


def test_one_model_for_all_test_cases_meets_no_incomplete_sample_or_unequal_shares(arrow_folder, clip_folder):
    """Count the missing cases of the masks: complete training data, or three missing texts for each missing image."""
    users = {"data_root": str(arrow_folder), "vit": str(clip_folder)}
    runs = plan(load_experiment("robust"), users, [0], ["task=mmimdb", "method=DCP"])
    masks = {run.at["training"]: masks_of(run.config) for run in runs}
    for split in ("train", "val"):
        assert not masks["complete"][split].any()
        texts, images = (np.bincount(masks[f"{kind} missing 3:1"][split]) for kind in ("texts", "images"))
        assert texts[0] == images[0]
        assert texts[1] == pytest.approx(3 * texts[2], abs=3)
        assert images[2] == pytest.approx(3 * images[1], abs=3)


def test_unnamed_settings_of_a_group_keep_their_values(tmp_path):
    """In a file as with dots: the same settings, so that a run has one key."""
    groups = {"dcp": {"generator": "fc"}, "missing_ratio": {"train": 0.2}}
    configs = []
    for base in (groups, flatten(groups)):
        experiment = load_experiment(written(tmp_path, base=SMALL["base"] | base))
        configs.append(resolve(experiment, experiment.runs[0], {}))
    assert configs[0] == configs[1]
    assert dict(configs[0].dcp) == dict(Config().dcp) | {"generator": "fc"}
    assert configs[0].missing_ratio == {"train": 0.2, "val": 0.7, "test": 0.7}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"titel": "x"}, "titel"),
        ({"title": None}, "title"),
        ({"title": 3}, "title=3"),
        ({"grid": None}, "grid"),
        ({"runs": [{"at": {"a": 1}, "settings": {}}]}, "grid and runs"),
        ({"grid": {"method": {}}}, "grid"),
        ({"grid": {"method": {"a": 1}}}, "grid.method"),
        ({"grid": {"seed": {"a": {}}}}, "seed"),
        ({"grid": None, "runs": [{"at": {"a": 1}}]}, "settings is missing"),
        ({"grid": None, "runs": [{"at": {"a": 1}, "settings": {}} for _ in "12"]}, "{'a': 1}"),
        ({"read": {"splits": ["dev"]}}, "read.splits"),
        ({"read": {"splits": ["val"], "cases": {"types": ["text"]}}}, "read.cases.ratios"),
        ({"read": {"splits": ["val"], "cases": {"types": ["text"], "ratios": [70]}}}, "read.cases.ratios"),
        ({"rows": ["method", "split"]}, "split"),
        ({"columns": []}, "split"),
        ({"figure": "pie"}, "figure='pie'"),
        ({"figure": "curves", "rows": [], "columns": ["method", "split"], "published": []}, "figure=curves"),
        ({"published": [{"method": "DCP", "value": 1}]}, "published[0]"),
        ({"published": [{"method": "DPC", "split": "val", "value": 1}]}, "method='DPC'"),
        ({"published": [{"method": "DCP", "split": "val", "value": "?"}]}, "published[0]"),
        ({"published": [dict(SMALL["published"][0]) for _ in "12"]}, "published"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_key(changes, words, tmp_path):
    path = written(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        load_experiment(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    assert words in message


@pytest.mark.parametrize(
    "text", ["title: [", "- a", "", "\x00", "a: 1\na: 2", "a:\n  b: 1\n  b: 2", "a: &x 1\nb: *x", "[" * 20_000]
)
def test_what_is_not_a_yaml_mapping_is_one_line(text, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=r"x\.yaml") as error:
        load_experiment(tmp_path / "x.yaml")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="table4"):
        load_experiment("table44")


def test_a_wrong_setting_is_named_with_its_experiment_and_run(tmp_path):
    for base, words in (({"max_epoh": 3}, "max_epoh"), ({"max_epoch": "3"}, "max_epoch='3'")):
        experiment = load_experiment(written(tmp_path, base=base))
        with pytest.raises(UserError, match=f"small.*method none.*{words}"):
            resolve(experiment, experiment.runs[0], {})


def test_users_override_the_base_and_coordinates_override_users(tmp_path, capsys):
    experiment = load_experiment(written(tmp_path, base={"missing_ratio": 0.5, "max_epoch": 3}))
    users = {"missing_ratio.train": 0.9, "max_epoch": 7, "prompt_type": "dcp"}
    config = resolve(experiment, experiment.runs[0], users)
    assert config.missing_ratio == {"train": 0.9, "val": 0.5, "test": 0.5}
    assert (config.max_epoch, config.prompt_type) == (7, "none")
    print_conflicts(experiment, users)
    no_effect, comparison = capsys.readouterr().out.splitlines()
    assert "prompt_type" in no_effect
    assert "missing_ratio.train=0.5" in comparison
    assert "max_epoch=3" in comparison
    print_conflicts(experiment, {"missing_ratio": {"train": 0.0, "val": 0.5, "test": 0.5}})  # as a preset sets it
    assert "missing_ratio.train=0.5" in capsys.readouterr().out


def test_only_what_the_user_set_overrides_the_base():
    settings = {"missing_ratio": {"train": 0.9}, "max_epoch": 20, "reproduce": {"jobs": 3}}
    config = make_config(settings, {"missing_ratio.train", "max_epoch", "reproduce.jobs"})
    assert user_settings(config) == {"missing_ratio.train": 0.9, "max_epoch": 20}
    config = config_from_sacred(DEFAULTS | {"missing_ratio": {"train": 0.7, "val": 0.7, "test": 0.5}},
                                {"missing_ratio": {"test": 0.5}})  # fmt: skip
    assert user_settings(config) == {"missing_ratio.test": 0.5}
    for settings in ({"seed": 1}, {"test_ratio": 0.5}):
        with pytest.raises(UserError, match=next(iter(settings))):
            user_settings(make_config(settings, set(settings)))


@pytest.fixture
def key(arrow_folder, clip_folder):
    def of(**settings):
        return key_of(make_config({"data_root": str(arrow_folder), "vit": str(clip_folder)} | settings))[0]

    return of


def test_a_key_changes_with_what_decides_numbers_and_with_nothing_else(key, tmp_path):
    plain = key()
    same = {"num_workers": 3, "log_dir": "elsewhere", "per_gpu_batchsize": 2, "num_gpus": 0, "exp_name": "x"}
    assert plain == key(**same, weight_decay=0.02, lr_mult=1, reproduce={"jobs": 4}, coop={"per_case": True})
    changed = [
        key(seed=1),
        key(learning_rate=0.1),
        key(prompt_type="none"),
        key(missing_seed=1),
        key(missing_ratio=0.5),
        key(missing_type="text"),
        key(task="hatememes"),
        key(max_epoch=3),
        key(missing_ratio={"train": 0.7, "val": 0.7, "test": 0.1}),
        key(dcp={"generator": "fc"}),
        key(vit=str(tiny.write_clip(tmp_path / "clip", seed=3))),
    ]
    assert len({plain, *changed}) == 1 + len(changed)
    assert key(missing_ratio=0.0, missing_type="text") == key(missing_ratio=0.0)  # nothing is missing
    simulated = {"simulate_missing": True, "missing_ratio": 0.0}
    assert key(**simulated) != key(**simulated, missing_seed=1)


def test_a_key_changes_with_the_data_and_survives_a_move(key, tmp_path):
    sizes = {"train": 6, "dev": 3, "test": 3}
    for name in "abc":
        tiny.write_arrow(tmp_path / name, sizes | ({"test": 6} if name == "c" else {}))
    place = {name: key(data_root=str(tmp_path / name)) for name in "abc"}
    assert place["a"] == place["b"] != place["c"]


def test_a_plan_is_restricted_and_its_metric_checked(arrow_folder, clip_folder, tmp_path):
    users = {"data_root": str(arrow_folder), "vit": str(clip_folder)}
    experiment = load_experiment(written(tmp_path))
    runs = plan(experiment, users, [0, 1], ["method=DCP"])
    assert [(run.at["method"], run.config.seed) for run in runs] == [("DCP", 0), ("DCP", 1)]
    assert f"vit={clip_folder}" in runs[0].command
    with pytest.raises(UserError, match="method=dpc"):
        check_only([experiment], ["method=dpc"])
    experiment = load_experiment(written(tmp_path, read={"splits": ["val", "test"], "metric": "AUROC"}))
    with pytest.raises(UserError, match="AUROC"):
        plan(experiment, users, [0], [])


def test_a_table_has_means_standard_deviations_published_values_and_holes(tmp_path):
    experiment = load_experiment(written(tmp_path))
    runs = [PlannedRun(run.at, "", None, "", {}, tmp_path) for run in experiment.runs]
    scores = pd.DataFrame(
        {"method": "DCP", "split": ["val", "val", "test"], "seed": [0, 1, 0], "score": [0.51, 0.53, 0.4]}
    )
    made, best = layout(experiment, scores, runs)
    assert made.columns.tolist() == ["method", "validation ours", "validation paper", "test ours", "test paper"]
    std = math.sqrt(2)  # of 51 and 53
    wanted = [["none", "", "", "", ""], ["DCP", f"52.00 ± {std:.2f}", "50.00", "40.00", ""]]
    assert made.to_numpy().tolist() == wanted
    assert not best.to_numpy().any()  # DCP alone
    assert to_markdown(made, best).splitlines()[3] == "| DCP | 52.00 ± 1.41 | 50.00 | 40.00 |  |"
    assert np.all(layout(experiment, pd.DataFrame(), runs)[0]["validation ours"] == "")
    unpublished = load_experiment(written(tmp_path, published=[]))
    assert layout(unpublished, scores, runs)[0].columns.tolist() == ["method", "validation", "test"]


def test_the_best_method_is_bold_whether_methods_are_rows_or_columns(tmp_path):
    scores = pd.DataFrame(
        {"method": ["none", "none", "DCP", "DCP"], "split": ["val", "test"] * 2, "score": [0.5, 0.3, 0.4, 0.6]}
    )
    for rows, columns in ((["method"], ["split"]), (["split"], ["method"])):
        experiment = load_experiment(written(tmp_path, rows=rows, columns=columns, published=[]))
        runs = [PlannedRun(run.at, "", None, "", {}, tmp_path) for run in experiment.runs]
        made, best = layout(experiment, scores, runs)
        assert sorted(made.to_numpy()[best.to_numpy()]) == ["50.00", "60.00"]
        assert "**50.00**" in to_markdown(made, best)
        assert r"\textbf{60.00}" in to_latex(made, best, 1)
