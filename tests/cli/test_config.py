"""Every setting has a comment, a rule and a reader; wrong values are refused with the value."""

import copy
import inspect
import re
from pathlib import Path

import pytest

from clip import config as config_module
from clip.cli.schema import RULES, validate
from clip.config import ex
from clip.modules.factory import MODELS
from clip.modules.prompts import PROMPT_TYPES
from clip.utils.errors import UserError

OWNERS = PROMPT_TYPES | MODELS  # whose settings are nested under their names
ROOT = Path(__file__).resolve().parents[2]


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
        assert f'["{key}"]' in code or f"    {key}: " in optim or f'"{key}"' in code, f"{key}: drop_first"


def test_the_config_names_every_setting_of_every_method_and_backbone(defaults):
    source = inspect.getsource(config_module)
    for name, method in OWNERS.items():
        assert defaults.get(name, {}) == method.Settings().model_dump(), name
        for key in defaults.get(name, {}):
            assert re.search(rf'"{key}": .*(  # \w)', source), f"{name}.{key}: no comment"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"missing_ratio": float("nan")}, ["missing_ratio.train=nan"]),
        ({"missing_ratio__dev": 0.5}, ["missing_ratio.dev", "train, val, test"]),
        ({"maple__depth": 1}, ["maple.depth", "per_case"]),
    ],
)
def test_what_nobody_can_type_is_refused_too(defaults, changes, words):
    with pytest.raises(UserError) as refusal:
        validate(changed(defaults, **changes))
    assert "\n" not in str(refusal.value)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_one_ratio_serves_all_splits_and_test_ratio_only_the_test(defaults):
    config = validate(changed(defaults, missing_ratio=0.45, test_ratio=0.9, test_type="image"))
    assert config["missing_ratio"] == {"train": 0.45, "val": 0.45, "test": 0.9}
    assert config["missing_type"] == {"train": "both", "val": "both", "test": "image"}
