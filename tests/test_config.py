"""Every setting has a comment, a rule and a reader; wrong values are refused with the value."""

import copy
import inspect
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from clip import config as config_module
from clip.config import ex
from clip.config_rules import RULES, validate
from clip.errors import UserError
from clip.modules.model import MODELS
from clip.modules.prompts import PROMPT_TYPES

OWNERS = PROMPT_TYPES | MODELS  # whose settings are nested under their names
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def defaults():
    base = ex.configurations[0]()
    return {key: value for key, value in base.items() if key != "__doc__"}


def changed(defaults, **changes):
    config = copy.deepcopy(defaults)
    for key, value in changes.items():
        *outer, last = key.split("__")
        target = config
        for name in outer:
            target = target[name]
        target[last] = value
    return config


def test_defaults_are_valid_and_not_changed_by_validation(defaults):
    before = copy.deepcopy(defaults)
    assert validate(defaults) == {**before, "test_ratio": None}
    assert defaults == before


def test_every_key_has_a_comment_a_rule_and_a_reader(defaults):
    source = inspect.getsource(config_module)
    code = "".join(
        path.read_text()
        for path in [ROOT / "run.py", *(ROOT / "clip").rglob("*.py")]
        if path.name not in ("config.py", "config_rules.py")
    )
    optim = re.search(r"class OptimSettings.*?@classmethod", code, re.S)[0]
    for key in defaults.keys() - {"test_type", "test_ratio"}:
        assert re.search(rf"^    {key} = .*(  # \w|\{{  # )", source, re.M), f"{key}: no comment"
        assert key in RULES or f"{key}.*" in RULES or key in OWNERS, f"{key}: no rule"
        assert f'["{key}"]' in code or f"    {key}: " in optim or f'"{key}"' in code, (
            f"{key}: unread"
        )


def test_the_config_names_every_setting_of_every_method_and_backbone(defaults):
    source = inspect.getsource(config_module)
    for name, method in OWNERS.items():
        assert defaults.get(name, {}) == asdict(method.Settings()), name
        for key in defaults.get(name, {}):
            assert re.search(rf'"{key}": .*(  # \w)', source), f"{name}.{key}: no comment"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "vqa"}, ["task='vqa'", "mmimdb, food101, hatememes"]),
        ({"missing_ratio__test": 1.5}, ["missing_ratio.test=1.5", "from 0 to 1"]),
        ({"missing_ratio": float("nan")}, ["missing_ratio.train=nan"]),
        ({"missing_ratio__dev": 0.5}, ["missing_ratio.dev", "train, val, test"]),
        ({"test_ratio": -0.1}, ["test_ratio=-0.1"]),
        ({"missing_type__train": "audio"}, ["missing_type.train='audio'", "text, image, both"]),
        ({"prompt_type": "cocoop"}, ["prompt_type='cocoop'", "dcp, none, coop"]),
        ({"dcp__prompts": "C"}, ["dcp.prompts='C'", "A, B, full, none"]),
        ({"dcp__reduction": 0}, ["dcp.reduction=0", "at least 1"]),
        ({"dcp__prompts": ["A"]}, ["dcp.prompts=['A']", "A, B"]),
        ({"prompt_type": "none", "dept__base": "dept"}, ["dept.base='dept'", "mmp, mmp_attention"]),
        ({"coop__per_case": 1}, ["coop.per_case=1", "True, False"]),
        ({"maple__depth": 1}, ["maple.depth", "per_case"]),
        ({"dcp": "full"}, ["dcp='full'", "dcp.prompts="]),
        ({"max_epoch": "many"}, ["max_epoch='many'", "whole number"]),
        ({"max_epoch": 2.5}, ["max_epoch=2.5"]),
        ({"fast_dev_run": 1}, ["fast_dev_run=1", "True or False"]),
        ({"exp_name": "../up"}, ["exp_name='../up'"]),
        ({"learning_rate": 0}, ["learning_rate=0", "above 0"]),
        ({"precision": 8}, ["precision=8", "one of 16, bf16, 32"]),
        ({"val_check_interval": 2}, ["val_check_interval=2", "above 0 to 1"]),
        ({"seed": -1}, ["seed=-1", "from 0"]),
        ({"seed": 2**33}, ["seed=", "4294967295"]),
        ({"exp_name": "x" * 300}, ["1 to 100 letters"]),
        ({"sweep_types": []}, ["sweep_types=[]", "at least one"]),
        ({"sweep_ratios": [0.5, 2]}, ["sweep_ratios=[0.5, 2]"]),
        ({"pretrain__width": 0}, ["pretrain.width=0"]),
        ({"pretrain__sources": ["memes:0"]}, ["pretrain.sources=['memes:0']", "task:label"]),
        ({"end_lr": 0.1}, ["end_lr=0.1", "learning_rate=0.01"]),
        ({"test_only": True}, ["load_path"]),
        ({"load_path": "a", "resume_from": "b"}, ["load_path=a", "resume_from=b"]),
    ],
)
def test_wrong_values_are_refused_with_the_value_and_the_range(defaults, changes, words):
    with pytest.raises(UserError) as refusal:
        validate(changed(defaults, **changes))
    assert "\n" not in str(refusal.value)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_one_ratio_serves_all_splits_and_test_ratio_only_the_test(defaults):
    config = validate(changed(defaults, missing_ratio=0.45, test_ratio=0.9, test_type="image"))
    assert config["missing_ratio"] == {"train": 0.45, "val": 0.45, "test": 0.9}
    assert config["missing_type"] == {"train": "both", "val": "both", "test": "image"}
