"""The leaderboard command: compare all runs of a folder that were trained and tested, averaged over their seeds."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clip.cli.build import check_plugins
from clip.cli.schema import Config
from clip.evaluation.report import PERCENT, title_of
from clip.experiments.plan import MASK_SETTINGS, NOT_IN_KEY
from clip.experiments.tables import ABSENT, best_of, mean_std, to_latex
from clip.modules.objectives import resolve_task
from clip.utils.command_line import flatten
from clip.utils.errors import UserError
from clip.utils.files import parse_object, write_text

TEST_CASE = ["test_type", "test_ratio"]
MODEL = ["method", "backbone", "data_set", "protocol", "train_type", "train_ratio", "metric"]
SHOWN = ["data_set", "trained_with", "method", "backbone", "protocol", "settings", "seeds", "metric"]
# Settings that do not tell runs apart, or have a column of their own. Masks and initial weights tell runs apart.
IGNORED = {"task", "prompt_type", "backbone", "seed", "limit_test"} | NOT_IN_KEY - MASK_SETTINGS - {"load_path"}
TEST_SETTINGS = ("plots", "limit_test", "both_ratio", "missing_draw", "missing_seed")


def leaderboard(config: Config) -> None:
    """Print one table of all tested runs in ``log_dir``, and write leaderboard.csv and leaderboard.tex there."""
    log_dir, scores = Path(config.log_dir), average_seeds(read_tests(config))
    table, best = lay_out(scores)
    print(table.mask(best, table + " *").to_string(index=False))
    print("Test scores in percent, mean ± standard deviation over the seeds; *: best of a data set and test case")
    write_text(log_dir / "leaderboard.csv", scores.drop(columns="text").to_csv(index=False))
    write_text(log_dir / "leaderboard.tex", to_latex(table, best, list(table).index("metric") + 1))
    print(f"written: {log_dir}/leaderboard.csv, leaderboard.tex")


def read_tests(config: Config) -> pd.DataFrame:
    """Read the newest test of each training run and test case in ``log_dir``, one per row; print what is left out."""
    log_dir, trained, tests, rows, used = Path(config.log_dir), {}, [], [], set()
    finished = [*log_dir.rglob("metrics.json"), *log_dir.rglob("result.json")]  # the latter of ``reproduce``
    for path in sorted(finished, key=lambda path: path.stat().st_mtime_ns):
        files = path.with_name("run.json"), path
        if not files[0].is_file():  # of another program
            continue
        record, metrics = (parse_object(file.read_bytes(), str(file)) for file in files)
        if any(name.startswith("test/") for name in metrics):
            tests.append((path.parent.resolve(), record | metrics))
        else:
            trained[path.parent.resolve()] = record | metrics
    for folder, test in tests:
        # Of runs that were moved, a test is inside its training run, but contains it in ``reproduce``.
        places = [*Path(test.get("checkpoint", "")).parents, *folder.parents, *folder.glob("training/*/version_*")]
        if run := next((place for place in places if place in trained), None):
            used.add(run)
            check_plugins(run, trained[run]["config"]["plugins"], config)
            rows.append(describe_test(trained[run], test, config.select_by))
    if not rows:
        raise UserError(f"log_dir={log_dir} has no run that was trained and tested; test one with test_only=True")
    if config.select_by not in {None, *(row["metric"] for row in rows)}:
        known = {name.removeprefix("test/") for _, test in tests for name in test if name.startswith("test/")} - {
            "loss"
        }
        raise UserError(f"no test has the score select_by={config.select_by}; choose one of {', '.join(sorted(known))}")
    table = pd.DataFrame(rows)  # the newest last
    newest = table.drop_duplicates([*MODEL, *TEST_CASE, "seed", "settings"], keep="last")
    left_out = {
        "tests that were repeated later": len(table) - len(newest),
        "training runs without a test": len(trained) - len(used),
        "tests without their training run": len(tests) - len(table),
    }
    print(*(f"left out: {count} {reason}\n" for reason, count in left_out.items() if count), sep="", end="")
    return newest


def describe_test(training: dict[str, Any], test: dict[str, Any], metric: str | None) -> dict[str, Any]:
    """Return the row of a test: ``MODEL``, ``TEST_CASE``, seed, score as a fraction, costs, and all other settings.

    The score is ``metric``, or the task's headline if the test has no such score.
    """
    config, row = training["config"], {}
    method, backbone = config["prompt_type"], config["backbone"]
    groups = {name for name, value in config.items() if isinstance(value, dict)} - {method, backbone}
    settings = flatten({name: value for name, value in config.items() if name not in IGNORED | groups})
    settings |= {f"test.{name}": test["config"][name] for name in TEST_SETTINGS}
    settings["test.checkpoint"] = Path(test.get("checkpoint", "")).stem.rpartition("-")[2]  # best or last
    settings["backbone_sha256"] = training["model_config"]["backbone_sha256"][:8]
    for split, run in (("train", training), ("val", training), ("test", test)):
        kind, ratio, table = (run["config"][f"missing_{name}"][split] for name in ("type", "ratio", "table"))
        if table:  # it decides by its content
            kind, ratio, table = Path(table).name, np.nan, run["missing_tables"][split][:8]
        settings |= {f"missing_table.{split}": table, f"arrow_files.{split}": run["arrow_files"].get(split)}
        row |= {f"{split}_type": kind, f"{split}_ratio": ratio}
    selected = row.pop("val_type"), row.pop("val_ratio")
    if selected != (row["train_type"], row["train_ratio"]):
        settings |= dict(zip(("missing_type.val", "missing_ratio.val"), selected, strict=True))
    if f"test/{metric}" not in test:
        metric = resolve_task(config["task"], training["model_config"]).headline
    own_data = config["task"] == "manifest"
    return row | {
        "method": method,
        "backbone": backbone,
        "data_set": Path(config["data_root"]).resolve().name if own_data else config["task"],
        "protocol": settings.pop(f"{backbone}.missing", "dummy"),
        "metric": metric,
        "seed": config["seed"],
        "score": np.nan if (score := test[f"test/{metric}"]) is None else score,
        "trainable_parameters": sum(training["trainable"].values()),
        "seconds_train": training["seconds_train"],
        "settings": tuple(sorted((key, str(value)) for key, value in settings.items() if value not in (None, ""))),
    }


def average_seeds(tests: pd.DataFrame) -> pd.DataFrame:
    """Average over the seeds of tests with equal settings, one row per model and test case.

    The columns are ``MODEL``, settings that differ among the tests of a method and backbone on a data set,
    ``TEST_CASE``, seeds, mean and std as fractions, text (both in percent), and costs.
    """
    texts = pd.Series("", tests.index)
    for _, settings in tests.groupby(["method", "backbone", "data_set"])["settings"]:
        flat = pd.DataFrame([dict(pairs) for pairs in settings], settings.index).fillna("")
        varied = flat.loc[:, flat.nunique() > 1].to_dict("index")
        texts.update(pd.Series({i: ", ".join(f"{k}={v}" for k, v in row.items() if v) for i, row in varied.items()}))
    groups = tests.assign(settings=texts).sort_values("seed").groupby([*MODEL, "settings", *TEST_CASE], dropna=False)
    return groups.agg(
        seeds=("seed", lambda seeds: " ".join(map(str, seeds))),
        mean=("score", "mean"),
        std=("score", "std"),
        text=("score", mean_std),
        trainable_parameters=("trainable_parameters", "first"),
        seconds_train=("seconds_train", "mean"),
    ).reset_index()


def lay_out(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lay out the averages as text, a column per test case, and return whether each cell is the best of a data set."""
    for name, pair in (("trained_with", ["train_type", "train_ratio"]), ("test", TEST_CASE)):
        texts = [f"{kind} {PERCENT * ratio:g} %" for kind, ratio in scores[pair].itertuples(index=False)]
        scores = scores.assign(**{name: [text.replace(" nan %", "") for text in texts]})  # of a mask file
    means = PERCENT * scores.pivot(index=SHOWN, columns="test", values="mean")
    best_first = means.assign(mean=means.mean(axis=1)).sort_values("mean", ascending=False)
    means = means.loc[best_first.index].sort_index(level=SHOWN[:2], sort_remaining=False, kind="stable")
    best = means.apply(best_of, groups=means.index.get_level_values("data_set"))
    table = scores.pivot(index=SHOWN, columns="test", values="text").loc[means.index].fillna(ABSENT)
    costs = scores.groupby(SHOWN)[["trainable_parameters", "seconds_train"]].mean().loc[means.index]
    table["parameters"] = costs["trainable_parameters"].map("{:,.0f}".format)
    table["minutes"] = (costs["seconds_train"] / 60).map("{:.2f}".format)
    table = table.reset_index()
    table = table.drop(columns=[] if table["settings"].any() else "settings")
    table[["data_set", "method", "metric"]] = table[["data_set", "method", "metric"]].map(title_of)
    best = best.reset_index(drop=True).reindex(columns=table.columns, fill_value=False)
    titles = {name: title_of(name) for name in SHOWN}
    return table.rename(columns=titles), best.rename(columns=titles)
