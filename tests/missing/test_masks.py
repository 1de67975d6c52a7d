"""What is drawn: exact counts, nested ratios, independent splits, the same everywhere."""

import json
from decimal import Decimal
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip.missing.masks import (
    CASES,
    COMPLETE,
    MISSING_IMAGE,
    MISSING_TEXT,
    MissingSettings,
    counts,
    describe,
    draw,
    draw_released_masks,
    table_hash,
)
from tests.toy_tables import ROOT, TOY, TOY_TABLE, python, refusal, toy

RELEASED = json.loads((ROOT / "tests/data/missing_tables.json").read_text())
TRAIN = MissingSettings("mmimdb", "train", 15552, "both", 0.7, 0.5, 0)
TRAIN_HASH = "27ba502dd4afad2bb56a2d2afcf45d4c3e9d293fb959b89149d9513a7bda4bef"

SIZES = st.integers(0, 200)
SHARES = st.one_of(st.integers(0, 100).map(lambda p: p / 100), st.floats(0, 1))


def test_hand_computed_table():
    table = draw(TOY)
    assert table.dtype == np.uint8
    assert table.tolist() == TOY_TABLE
    assert counts(table) == (3, 4, 3)
    assert (COMPLETE, MISSING_TEXT, MISSING_IMAGE) == (0, 1, 2)
    assert [CASES[state] for state in table[:3]] == ["missing_image", "missing_text", "complete"]


@pytest.mark.parametrize(
    ("missing_type", "both_ratio", "expected"),
    [
        ("both", 0.5, (4666, 5443, 5443)),
        ("both", 0.3, (4666, 7621, 3265)),
        ("text", 0.5, (4666, 10886, 0)),
        ("image", 0.5, (4666, 0, 10886)),
    ],
)
def test_published_counts(missing_type, both_ratio, expected):
    assert counts(draw(toy(15552, missing_type, 0.7, both_ratio))) == expected


def test_description_says_what_is_really_missing():
    both = toy(15552, both_ratio=0.3)
    assert describe(draw(both), both, both.observed_cases()) == (
        "train: 4666 complete, 7621 without text, 3265 without image (missing both at 0.7)"
    )


@settings(deadline=None)  # a busy machine is no fault
@given(SIZES, SHARES, SHARES)
def test_counts_are_exact_for_every_share(size, ratio, both_ratio):
    complete, no_text, no_image = counts(draw(toy(size, "both", ratio, both_ratio)))
    missing = no_text + no_image
    assert complete + missing == size
    assert missing <= Decimal(str(ratio)) * size < missing + 1
    assert no_image <= Decimal(str(both_ratio)) * missing < no_image + 1


def test_no_sample_is_lost_to_floating_point():
    assert int(100 * 0.29) == 28
    assert counts(draw(toy(100, "text", 0.29))) == (71, 29, 0)
    assert counts(draw(toy(100, "both", 1, 0.29))) == (0, 71, 29)
    assert counts(draw(toy(100, "text", np.float32(0.7)))) == (30, 70, 0)


@settings(deadline=None)
@given(SIZES, st.tuples(SHARES, SHARES).map(sorted), SHARES)
def test_a_growing_ratio_keeps_every_state(size, ratios, both_ratio):
    few, many = (draw(toy(size, "both", ratio, both_ratio)) for ratio in ratios)
    missing = few != COMPLETE
    assert np.array_equal(few[missing], many[missing])


@settings(deadline=None)
@given(SIZES, SHARES, SHARES)
def test_all_types_lose_the_same_rows(size, ratio, both_ratio):
    text, image, both = (draw(toy(size, kind, ratio, both_ratio)) for kind in ("text", "image", "both"))
    assert np.array_equal(text == MISSING_TEXT, both != COMPLETE)
    assert np.array_equal(image == MISSING_IMAGE, both != COMPLETE)


def test_splits_seeds_and_datasets_agree_only_by_chance():
    chance = 0.3**2 + 2 * 0.35**2  # 33.5 %; one standard deviation is 0.4 %
    variants = [{}, {"split": "val"}, {"seed": 8}, {"dataset": "food101"}]
    tables = [draw(toy(15552, **variant)) for variant in variants]
    for one, other in combinations(tables, 2):
        assert abs((one == other).mean() - chance) < 0.016


def test_table_is_the_same_in_another_process():
    code = f"from clip.missing.masks import MissingSettings, draw, table_hash\nprint(table_hash(draw({TRAIN!r})))"
    out, _ = python(code, PYTHONHASHSEED="random").communicate()
    assert out.strip() == table_hash(draw(TRAIN)) == TRAIN_HASH


@pytest.mark.parametrize("first", range(0, len(RELEASED), 3))
def test_released_tables(first):
    entries = RELEASED[first : first + 3]
    keys = ("split", "size", "missing_type", "ratio", "both_ratio", "seed")
    tables = draw_released_masks([MissingSettings("x", *map(entry.get, keys)) for entry in entries])
    for entry in entries:
        table = tables[entry["split"]]
        assert table_hash(table) == entry["sha256_of_uint8"]
        assert list(counts(table)) == entry["counts"]
        assert table[:16].tolist() == entry["first16"]


def test_released_order_and_truncation():
    assert counts(draw_released_masks([toy(100, "image", 0.29)])["train"]) == (72, 0, 28)
    assert "('test',)" in refusal(draw_released_masks, [toy(4, split="test")])
    assert "[7, 8]" in refusal(draw_released_masks, [toy(), toy(split="val", seed=8)])


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("ratio", 1.01, "from 0 to 1"),
        ("ratio", -0.1, "from 0 to 1"),
        ("ratio", float("nan"), "from 0 to 1"),
        ("ratio", "0.7", "from 0 to 1"),
        ("both_ratio", float("inf"), "from 0 to 1"),
        ("both_ratio", True, "from 0 to 1"),
        ("missing_type", "audio", "('text', 'image', 'both')"),
        ("size", -1, "0 or more"),
        ("size", 1.5, "whole number"),
        ("seed", 0.5, "whole number"),
        ("dataset", "../x", "form"),
        ("split", "train_2", "form"),
    ],
)
def test_settings_refuse_a_value_by_name(key, value, allowed):
    message = refusal(lambda: toy(**{key: value}))
    assert f"{key}={value!r}" in message
    assert allowed in message
