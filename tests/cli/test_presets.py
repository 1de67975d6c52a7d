"""The named configs `released` and `paper` through the command line."""

import json
import re

import numpy as np
import pytest

from clip.missing.masks import MissingConfig, count_cases, draw_released_masks, mask_hash
from tests.conftest import SIZES, shell

QUERIES = {"prompts.dynamic.image.queries", "prompts.dynamic.text.queries"}


def start(preset, settings, log_dir, *more):
    done = shell("with", preset, "task_finetune_mmimdb", *settings, f"log_dir={log_dir}",
                 "max_epoch=1", "exp_name=p", *more)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = log_dir.glob("*/version_0/run.json")
    return done.stdout, json.loads(path.read_text())


def test_released(settings, tmp_path):
    seed = "missing_seed=5"
    out, record = start("released", settings, tmp_path, "batch_size=24", "seed=5", seed)
    config = record["config"]
    assert config["optim_type"] == "adamw"
    assert config["schedule_length"] == "floor"
    assert QUERIES.isdisjoint(record["trainable"])
    assert {"image_encoder.proj", "text_encoder.ln_final.bias"} <= record["trainable"].keys()
    observed = {"train": np.zeros(SIZES["train"]), "val": np.zeros(SIZES["dev"])}
    missing = MissingConfig(dict.fromkeys(observed, "both"), dict.fromkeys(observed, 0.7), seed=5)
    tables = draw_released_masks(observed, missing)
    hashes = {split: mask_hash(table) for split, table in tables.items()}
    assert record["missing_tables"] == hashes
    # Every second film has two plots: 36 samples of 24 films, and films are what is masked.
    films = [film for film in range(SIZES["train"]) for _ in range(1 + film % 2)]
    complete, no_text, no_image = count_cases(tables["train"][films])
    assert complete + no_text + no_image == 36
    assert re.search(rf"^train +36 +0 +0 +{complete} +{no_text} +{no_image} ", out, re.MULTILINE)


def test_paper(settings, tmp_path):
    given = [text for text in settings if not text.startswith("batch_size")]
    _, record = start("paper", given, tmp_path)
    assert record["config"]["batch_size"] == 4
    assert record["config"]["optim_type"] == "adam"
    assert record["trainable"].keys() > QUERIES
    assert all(name.startswith(("prompts.", "classifier.")) for name in record["trainable"])


@pytest.mark.parametrize("preset", ["released", "paper"])
def test_print_config_shows_what_a_preset_changes(preset):
    text = shell("print_config", "with", preset).stdout
    wanted = {"released": "dynamic_queries = 'fixed'", "paper": "formulas = 'paper'"}
    assert wanted[preset] in text
