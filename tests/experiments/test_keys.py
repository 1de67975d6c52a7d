"""What a run is known by: its key changes with what decides its numbers, and with nothing else."""

import pytest

from clip.cli.schema import validate
from clip.experiments import keys
from clip.experiments.plan import defaults
from tests import tiny


@pytest.fixture
def key(arrow_folder, clip_folder):
    def of(**settings):
        config = defaults() | {"data_root": str(arrow_folder), "vit": str(clip_folder)} | settings
        return keys.key_of(validate(config))[0]

    return of


def test_a_key_changes_with_what_decides_numbers_and_with_nothing_else(key, tmp_path):
    plain = key()
    assert plain == key(num_workers=3, log_dir="elsewhere", per_gpu_batchsize=2, num_gpus=0,
                        exp_name="x", jobs=4, weight_decay=0.02, lr_mult=1.0)  # fmt: skip
    changed = [key(seed=1), key(learning_rate=0.1), key(prompt_type="none"), key(missing_seed=1),
               key(missing_ratio=0.5), key(missing_type="text"), key(task="hatememes"),
               key(missing_ratio={"train": 0.7, "val": 0.7, "test": 0.1}),
               key(vit=str(tiny.write_clip(tmp_path / "clip", seed=3))),
               key(max_epoch=3)]  # fmt: skip
    assert len({plain, *changed}) == 1 + len(changed)
    assert key(missing_ratio=0.0, missing_type="text") == key(missing_ratio=0.0)  # nothing missing
    assert key(simulate_missing=True, missing_ratio=0.0) != key(
        simulate_missing=True, missing_ratio=0.0, missing_seed=1
    )


def test_a_key_does_not_change_with_the_settings_of_another_method(key):
    other = {"dcp": {"generator": "fc"}}
    assert key(prompt_type="none", **other) == key(prompt_type="none")
    assert key(prompt_type="dcp", **other) != key(prompt_type="dcp")


def test_a_key_changes_with_the_data_and_survives_a_move(key, tmp_path):
    for name, sizes in (("a", {"train": 6, "dev": 3, "test": 3}),
                        ("b", {"train": 6, "dev": 3, "test": 3}),
                        ("c", {"train": 6, "dev": 3, "test": 6})):  # fmt: skip
        tiny.write_arrow(tmp_path / name, sizes)
    place = {name: key(data_root=str(tmp_path / name)) for name in "abc"}
    assert place["a"] == place["b"] != place["c"]


def test_a_key_changes_with_the_model_but_not_with_the_report(monkeypatch, tmp_path):
    shown = ("evaluation/report.py", "evaluation/costs.py", "experiments/tables.py")
    for name in (*shown, "modules/a.py", "experiments/once.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(keys, "PACKAGE", tmp_path)
    version = keys.code_version.__wrapped__
    before = version()
    for name in shown:
        (tmp_path / name).write_text("2")
    assert version() == before
    for name in ("modules/a.py", "experiments/once.py"):
        (tmp_path / name).write_text("2")
        assert version() != before
        before = version()
