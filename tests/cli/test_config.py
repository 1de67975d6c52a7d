"""Settings: defaults, types, help texts, files after ``with``, and the help pages."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

import run
from clip.cli.schema import DEFAULTS, METHOD_SETTINGS, Config, config_from_sacred, make_config
from clip.config import GROUPS, SECTIONS
from clip.utils.command_line import flatten, to_cli_args
from clip.utils.errors import UserError
from tests import forked
from tests.conftest import shell

ROOT = Path(__file__).resolve().parents[2]
PARTS = [*SECTIONS, *GROUPS.values(), *METHOD_SETTINGS.values()]


def test_defaults_validate_to_themselves_and_round_trip_through_the_command_line():
    assert make_config(DEFAULTS) == Config()
    assert flatten(DEFAULTS).keys() == {word.partition("=")[0] for word in to_cli_args(DEFAULTS)}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_setting_has_a_help_text_and_a_reader(part):
    code = "".join(path.read_text() for path in (ROOT / "clip").rglob("*.py") if path.name != "config.py")
    for name, field in part.model_fields.items():
        assert field.description, name
        assert re.search(rf"\.{name}\b|\"{name}\"|^    {name}:", code, re.M), f"{name} is never read"


def test_one_value_serves_all_splits_and_the_shorthands_only_the_test_split():
    config = make_config({"missing_ratio": 0.45, "test_ratio": 0.9, "test_type": "image"})
    assert config.missing_ratio == {"train": 0.45, "val": 0.45, "test": 0.9}
    assert config.missing_type == {"train": "both", "val": "both", "test": "image"}
    assert make_config({"missing_type": {"test": "text"}}).missing_type["train"] == "both"


def test_overrides_are_what_presets_and_users_set():
    values = DEFAULTS | {"task": "food101", "dcp": DEFAULTS["dcp"] | {"generator": "fc"}}
    config = config_from_sacred(values, {"batch_size": DEFAULTS["batch_size"]})
    assert {"task", "dcp.generator", "batch_size"} <= config.overrides
    assert "seed" not in config.overrides
    changed = config.replace(seed=3)
    assert (changed.seed, changed.overrides) == (3, config.overrides)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"missing_ratio": float("nan")}, "missing_ratio.train=nan"),
        ({"missing_ratio": {"dev": 0.5}}, "missing_ratio.dev"),
        ({"maple": {"depth": 1}}, "maple.depth"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_size": 10**30}, "batch_size=1000"),
        ({"prompt_type": "cocoop"}, "prompt_type='cocoop'"),
        ({"end_lr": 0.1}, "end_lr=0.1"),
    ],
)
def test_an_invalid_value_is_named_in_one_line(values, named):
    with pytest.raises(UserError) as error:
        make_config(values)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["settings.yaml", "settings.json", "run.json"])
def test_a_settings_file_sets_what_it_holds(name, tmp_path, capsys):
    content = {"batch_size": 8, "missing_ratio": {"train": 0.1}, "dcp": {"generator": "fc"}, "exp_name": "2024"}
    if name == "run.json":
        content = {"command": ["run.py"], "config": content}
    (tmp_path / name).write_text(json.dumps(content))  # JSON is YAML
    run.command_line(["run.py", "print_config", "with", str(tmp_path / name), "max_epoch=3"])
    shown = capsys.readouterr().out
    for line in ("batch_size = 8", "max_epoch = 3", "dcp.generator = 'fc'", "exp_name = '2024'"):
        assert f"*{line} " in shown
    assert "'train': 0.1, 'val': 0.7" in shown


def test_numbers_and_dates_in_yaml_are_read_as_they_are_written(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("learning_rate: 1e-2\nexp_name: 2024-01-01")
    run.command_line(["run.py", "print_config", "with", str(tmp_path / "a.yaml")])
    shown = capsys.readouterr().out
    assert "*learning_rate = 0.01 " in shown
    assert "*exp_name = '2024-01-01' " in shown


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"seed": {"py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": ["%s"]}]}}'),
        ("a.json", '{"unfreeze": [{"py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": ["%s"]}]}]}'),
        ("a.json", "{\"exp_name\": \"\\u00a0[{'py/reduce': [{'py/function': 'os.mkdir'}, {'py/tuple': ['%s']}]}]\"}"),
        ("a.yaml", "exp_name: !!bool maybe"),
        ("a.yaml", "seed: !!python/object/apply:os.mkdir ['%s']"),
        ("a.yaml", "unfreeze: [{py/reduce: [{py/function: os.mkdir}, {py/tuple: ['%s']}]}]"),
        ("a.yaml", "exp_name: &name mine\ndata_root: *name"),
        ("a.yaml", "batch_size: 8\nbatch_size: 16"),
        ("a.yaml", f"exp_name: '{'-' * 100_000}1'"),
        ("a.pickle", "cos\nmkdir\n(S'%s'\ntR."),
        ("a.yaml", "- 1\n- 2"),
        ("a.yaml", ""),
        ("a.yaml", "a: [1"),
        ("a.json", "{"),
        ("a.yaml", "batch_size: many"),
        ("a.yaml", "dcp.generator: fc\nbach_size: 3"),
    ],
)
def test_a_faulty_settings_file_is_one_line_and_runs_nothing(name, content, tmp_path):
    proof = tmp_path / "proof"
    (tmp_path / name).write_text(content.replace("%s", str(proof)))
    with pytest.raises(SystemExit) as error:
        run.command_line(["run.py", "print_config", "with", str(tmp_path / name)])
    assert re.fullmatch("error: [^\n]+", str(error.value))
    assert not proof.exists()


def test_a_settings_file_imports_only_plugins_that_the_command_line_names_too(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_plugin.py").write_text("print('imported')")
    (tmp_path / "a.yaml").write_text("plugins: my_plugin")
    monkeypatch.syspath_prepend(tmp_path)
    command = ["run.py", "print_config", "with", str(tmp_path / "a.yaml")]
    with pytest.raises(SystemExit, match="plugins="):
        run.command_line(command)
    assert "imported" not in capsys.readouterr().out
    run.command_line([*command, "plugins=my_plugin"])
    assert "imported" in capsys.readouterr().out
    del sys.modules["my_plugin"]


@pytest.mark.parametrize("word", ["data_root=...", "exp_name=1j", "predict.text=b'x'", "sweep.ratios={0.1,0.2}",
                                  f"batch_size={10**30}", f"seed={'1234' * 10}", f"exp_name={'1234' * 10}",
                                  "learning_rate=1e300", "logger=['csv',1]", f"plugins={'-' * 100_000}1",
                                  f"exp_name={'-' * 100_000}1"])  # fmt: skip
def test_values_of_types_that_no_setting_has_are_one_line(word):
    with pytest.raises(SystemExit) as error:
        run.command_line(["run.py", "print_config", "with", word])
    assert re.fullmatch("error: [^\n]+", str(error.value))
    assert word.partition("=")[0] in str(error.value)


def test_the_later_of_two_missing_rates_counts(capsys):
    order = {"missing_ratio=0.3 missing_ratio.test=0.5": "{'train': 0.3, 'val': 0.3, 'test': 0.5}",
             "missing_ratio.test=0.5 missing_ratio=0.3": "0.3 "}  # fmt: skip
    order["missing_ratio={'test':0.5} dcp={'generator':'fc'}"] = "{'train': 0.7, 'val': 0.7, 'test': 0.5}"
    for words, shown in order.items():
        run.command_line(["run.py", "print_config", "with", *words.split()])
        printed = capsys.readouterr().out
        assert f"*missing_ratio = {shown}" in printed
    assert "*dcp.generator = 'fc' " in printed


def test_help_takes_a_command_and_names_an_unknown_one(capsys):
    run.command_line(["run.py", "help", "predict"])
    assert "predict.image = ''" in capsys.readouterr().out
    with pytest.raises(SystemExit) as error:
        run.command_line(["run.py", "help", "foo"])
    assert re.fullmatch("error: [^\n]*'foo'[^\n]+", str(error.value))


def close_output():
    """Redirect standard output to a pipe whose reading end is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  the fork's would seek, as in a file


def test_a_closed_pipe_is_quiet():
    done = forked.start("print_config", before=close_output).wait()
    assert not done.stderr


def test_help_lists_commands_and_settings_and_survives_a_closed_pipe():
    overview = shell("--help", fresh=True)
    assert overview.returncode == 0
    assert shell().stdout == overview.stdout
    for name in run.COMMANDS:
        assert f"  {name} " in overview.stdout
    assert "predict.image = ''" in shell("predict", "--help").stdout
    printed = shell("print_config", "with", "task_finetune_hatememes").stdout
    order = [printed.index(f"{name} = ") for section in SECTIONS for name in section.model_fields]
    assert order == sorted(order)
    assert "*val_check_interval = 0.11 " in printed
    assert "predict.image" not in printed
