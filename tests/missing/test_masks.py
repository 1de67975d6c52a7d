"""Masks: exact counts, nested ratios, independent splits, observed cases kept, the same on every machine."""

import json
from decimal import Decimal
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip.missing import CASES, COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.missing.masks import (
    MissingConfig,
    count_cases,
    describe_masks,
    draw_released_masks,
    mask_hash,
    merge_observed,
)
from tests.toy_tables import ROOT, TOY_MASK, python, toy_config, toy_mask

RELEASED = json.loads((ROOT / "tests/data/missing_tables.json").read_text())
TRAIN_HASH = "27ba502dd4afad2bb56a2d2afcf45d4c3e9d293fb959b89149d9513a7bda4bef"
# Of the ten toy rows, in the order 1 7 4 5 9 0 8 2 3 6, row 7 has no text and row 3 no image:
# of the other eight, floor(0.7 * 8) = 5 lose a modality: 1 text, 4 image, 5 text, 9 image, 0 text.
OBSERVED = bytes([0, 0, 0, 2, 0, 0, 0, 1, 0, 0])
WITH_OBSERVED = [1, 1, 0, 2, 2, 1, 0, 1, 0, 2]

SIZES = st.integers(0, 200)
OBSERVATIONS = st.lists(st.integers(0, 2), max_size=60).map(bytes)
TYPES = st.sampled_from(["text", "image", "both"])
SHARES = st.one_of(st.integers(0, 100).map(lambda p: p / 100), st.floats(0, 1))


def test_hand_computed_masks():
    mask = toy_mask()
    assert mask.dtype == np.uint8
    assert mask.tolist() == TOY_MASK
    assert count_cases(mask) == (3, 4, 3)
    assert (COMPLETE, MISSING_TEXT, MISSING_IMAGE) == (0, 1, 2)
    assert [CASES[case] for case in mask[:3]] == ["missing_image", "missing_text", "complete"]
    assert toy_mask(OBSERVED).tolist() == WITH_OBSERVED
    assert toy_mask(OBSERVED, "both", 0).tolist() == list(OBSERVED)
    assert toy_mask(OBSERVED, "text", 1).tolist() == [1, 1, 1, 2] + [1] * 6


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
    assert count_cases(toy_mask(15552, missing_type, 0.7, both_ratio)) == expected


@settings(deadline=None)  # a busy machine is no fault
@given(SIZES, SHARES, SHARES)
def test_counts_are_exact_for_every_share(size, ratio, both_ratio):
    complete, no_text, no_image = count_cases(toy_mask(size, "both", ratio, both_ratio))
    missing = no_text + no_image
    assert complete + missing == size
    assert missing <= Decimal(str(ratio)) * size < missing + 1
    assert no_image <= Decimal(str(both_ratio)) * missing < no_image + 1


def test_no_sample_is_lost_to_floating_point():
    assert int(100 * 0.29) == 28
    assert count_cases(toy_mask(100, "text", 0.29)) == (71, 29, 0)
    assert count_cases(toy_mask(100, "both", 1, 0.29)) == (0, 71, 29)
    assert count_cases(toy_mask(100, "text", np.float32(0.7))) == (30, 70, 0)


@settings(deadline=None)
@given(OBSERVATIONS, st.tuples(SHARES, SHARES).map(sorted), SHARES, TYPES)
def test_observed_cases_stay_and_a_growing_ratio_keeps_every_case(observed, ratios, both_ratio, missing_type):
    few, many = (toy_mask(observed, missing_type, ratio, both_ratio) for ratio in ratios)
    assert np.array_equal(few[few != COMPLETE], many[few != COMPLETE])
    cases = np.frombuffer(observed, dtype=np.uint8)
    complete = cases == COMPLETE
    config = toy_config(missing_type, ratios[1], both_ratio)
    for mask in (many, draw_released_masks({"train": cases}, config)["train"]):
        assert np.array_equal(mask[~complete], cases[~complete])
        lost = int((mask[complete] != COMPLETE).sum())
        assert lost <= complete.sum() * ratios[1] + 1e-9 < lost + 1 + 1e-6


@settings(deadline=None)
@given(SIZES, SHARES, SHARES)
def test_all_types_lose_the_same_rows(size, ratio, both_ratio):
    text, image, both = (toy_mask(size, kind, ratio, both_ratio) for kind in ("text", "image", "both"))
    assert np.array_equal(text == MISSING_TEXT, both != COMPLETE)
    assert np.array_equal(image == MISSING_IMAGE, both != COMPLETE)


def test_splits_seeds_and_datasets_agree_only_by_chance():
    chance = 0.3**2 + 2 * 0.35**2  # 33.5 %; one standard deviation is 0.4 %
    variants = [{}, {"split": "val"}, {"seed": 8}, {"dataset": "food101"}]
    masks = [toy_mask(15552, **variant) for variant in variants]
    for one, other in combinations(masks, 2):
        assert abs((one == other).mean() - chance) < 0.016


def test_a_mask_is_the_same_in_another_process():
    assert mask_hash(toy_mask(15552, dataset="mmimdb", seed=0)) == TRAIN_HASH
    code = "from tests.toy_tables import toy_mask; from clip.missing.masks import mask_hash\n"
    assert python(f"{code}print(mask_hash(toy_mask(15552, dataset='mmimdb', seed=0)))").strip() == TRAIN_HASH


@pytest.mark.parametrize("first", range(0, len(RELEASED), 3))
def test_released_masks(first):
    entries = {entry["split"]: entry for entry in RELEASED[first : first + 3]}
    types, ratios = ({split: entry[key] for split, entry in entries.items()} for key in ("missing_type", "ratio"))
    train = entries["train"]
    config = MissingConfig(types, ratios, train["both_ratio"], train["seed"])
    assert {(entry["both_ratio"], entry["seed"]) for entry in entries.values()} == {
        (train["both_ratio"], train["seed"])
    }
    observed = {split: np.zeros(entry["size"], dtype=np.uint8) for split, entry in entries.items()}
    for split, mask in draw_released_masks(observed, config).items():
        assert mask_hash(mask) == entries[split]["sha256_of_uint8"]
        assert list(count_cases(mask)) == entries[split]["counts"]
        assert mask[:16].tolist() == entries[split]["first16"]


def test_released_truncation():
    mask = draw_released_masks({"train": np.zeros(100, dtype=np.uint8)}, toy_config("image", 0.29))["train"]
    assert count_cases(mask) == (72, 0, 28)


def test_an_imported_mask_never_removes_the_other_modality():
    mask, observed = np.array([0, 1, 2, 1, 2, 0]), np.array([1, 2, 1, 1, 0, 0])
    assert merge_observed(mask, observed).tolist() == [1, 2, 1, 1, 2, 0]


def test_a_description_tells_observed_from_simulated():
    mask, observed = np.array(WITH_OBSERVED), np.frombuffer(OBSERVED, dtype=np.uint8)
    splits = {"train": (observed, mask), "val": (np.zeros(10, dtype=np.uint8), np.array(TOY_MASK))}
    train, val = describe_masks(splits, toy_config()).splitlines()[-2:]
    assert train.split()[:7] == ["train", "8", "1", "1", "3", "4", "3"]
    assert val.split()[:7] == ["val", "10", "0", "0", "3", "4", "3"]
