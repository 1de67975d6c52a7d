"""Runs with precision=bf16 on a CPU: honoured where the processor has the instructions, else a line and 32 bit.

What the processor reports is replaced, so that the runs are the same everywhere; torch emulates missing instructions.
"""

import json

import pytest
import torch

from clip.engine.checkpoints import LAST, find_checkpoint
from tests.cli.test_resume import call, last


def claim(patch, **capabilities):
    """Replace the instructions that the processor reports."""
    patch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


def record(folder):
    return json.loads((find_checkpoint(str(folder), LAST).parents[1] / "run.json").read_text())


@pytest.fixture(scope="module")
def runs(settings, tmp_path_factory):
    """Runs of 6 steps in bf16, two whole and one stopped within an epoch and resumed; and one with the default."""
    base = tmp_path_factory.mktemp("bf16")
    words = ["with", "task_finetune_mmimdb", *settings, "max_epoch=2", "learning_rate=0.02"]
    with pytest.MonkeyPatch.context() as patch:
        claim(patch, avx512_bf16=True)
        for name in ("whole", "again"):
            assert call(*words, "precision=bf16", f"log_dir={base / name}") == 0
        assert call(*words, "precision=bf16", f"log_dir={base / 'stopped'}", "max_steps=2") == 0
        assert call("with", "task_finetune_mmimdb", f"resume_from={base / 'stopped'}", "max_steps=None") == 0
        assert call(*words, f"log_dir={base / 'auto'}") == 0
    return base, words


def test_two_runs_and_a_resumed_one_are_equal_bitwise(runs):
    base, _ = runs
    whole = last(base / "whole")[1]
    assert record(base / "whole")["device"]["precision"] == "bf16-mixed"
    assert {tensor.dtype for tensor in whole["state_dict"].values()} == {torch.float32}
    moments = [x for state in whole["optimizer_states"][0]["state"].values() for x in state.values()]
    assert {x.dtype for x in moments} == {torch.float32}
    for name in ("again", "stopped"):
        path, content = last(base / name)
        assert path.parents[1].name == ("version_1" if name == "stopped" else "version_0")
        assert content["global_step"] == 6
        assert all(torch.equal(tensor, whole["state_dict"][key]) for key, tensor in content["state_dict"].items())


def test_the_default_on_a_cpu_is_32_bit_and_has_other_results(runs):
    base, _ = runs
    assert record(base / "auto")["device"]["precision"] == "32-true"
    whole, auto = (last(base / name)[1]["state_dict"] for name in ("whole", "auto"))
    assert any(not torch.equal(tensor, auto[key]) for key, tensor in whole.items())


def test_its_checkpoint_is_swept_and_predicts_in_bf16_and_in_32_bit(runs, arrow_folder, tmp_path, monkeypatch, capsys):
    base, _ = runs
    claim(monkeypatch, avx512_bf16=True)
    answers, tables, records = {}, {}, {}
    for precision in ("bf16", "32"):
        folder = tmp_path / precision
        words = [
            "with",
            "task_finetune_mmimdb",
            f"data_root={arrow_folder}",
            f"load_path={base / 'whole'}",
            "num_gpus=0",
        ]
        words += ["num_workers=0", f"precision={precision}", f"log_dir={folder}"]
        assert call("sweep", *words, "sweep.ratios=[0.7]") == 0
        tables[precision] = next(folder.rglob("predictions.arrow")).read_bytes()
        records[precision] = json.loads(next(folder.rglob("run.json")).read_text())["device"]["precision"]
        table = folder / "films.csv"
        table.write_text("text\na comedy of a day\na horror of a night\n")
        out = folder / "out.csv"
        assert call("predict", *words, f"predict.input={table}", f"predict.output={out}") == 0
        answers[precision] = out.read_text()
    assert records == {"bf16": "bf16-mixed", "32": "32-true"}
    assert tables["bf16"] != tables["32"]
    assert answers["bf16"] != answers["32"]


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_without_the_instructions_one_line_says_32_bit(precision, runs, tmp_path, monkeypatch, capsys):
    _, words = runs
    claim(monkeypatch, avx512_bf16=False, avx2=True)
    capsys.readouterr()
    assert call(*words, f"precision={precision}", f"log_dir={tmp_path}", "max_steps=1") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "precision" in line]
    assert f"precision={precision}" in line
    assert record(tmp_path)["device"]["precision"] == "32-true"
