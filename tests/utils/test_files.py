"""Files are whole or not there, whoever else writes them and whatever goes wrong."""

import tempfile

import pytest

from clip.utils.files import atomic_write, write_text
from tests.experiment_files import call


def test_a_file_is_the_old_or_the_new_one(tmp_path):
    path = tmp_path / "folder" / "table.csv"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # its block ended last
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "second" * 10_000 + "\ud800")
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_is_written_beside_its_place(settings, tmp_path, monkeypatch):
    """Not in the system's temporary folder: from another disk it would arrive piece by piece."""

    def refuse(*arguments, **named):
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    call("with", *settings, f"log_dir={tmp_path}", "max_steps=1", "prompt_type=none")
    assert list(tmp_path.glob("*/version_0/checkpoints/*-last.pt"))
