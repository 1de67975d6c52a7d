"""Files are complete or do not exist, whoever else writes them and whatever goes wrong."""

import errno
import os
import stat
import tempfile

import pytest

from clip.utils.errors import UserError
from clip.utils.files import atomic_write, atomic_write_all, describe_os_error, parse_object, write_text
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


def test_the_mode_follows_the_umask_whatever_the_library_sets(tmp_path):
    umask = os.umask(0)
    os.umask(umask)
    with atomic_write(tmp_path / "a") as partial:
        partial.touch(mode=0o600)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


def test_files_written_together_are_all_old_or_all_new(tmp_path):
    paths = [tmp_path / "train", tmp_path / "test"]
    for path in paths:
        path.write_text("old")
    with pytest.raises(UnicodeEncodeError), atomic_write_all(*paths) as partials:
        partials[paths[0]].write_text("new" * 10_000 + "\ud800")
    assert [path.read_text() for path in paths] == ["old", "old"]
    with atomic_write_all(*paths) as partials:
        for partial in partials.values():
            partial.write_text("new")
    assert [path.read_text() for path in paths] == ["new", "new"]
    with atomic_write_all(*paths) as first, atomic_write_all(*paths) as second:
        for path in paths:
            first[path].write_text("first")
            second[path].write_text("second")
    assert [path.read_text() for path in paths] == ["first", "first"]  # its block ended last
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO, None])
def test_an_os_error_has_its_file_and_its_own_reason(tmp_path, code):
    error = OSError(code, os.strerror(code)) if code else OSError("the reason")
    with (
        pytest.raises(OSError, match=os.strerror(code) if code else "the reason") as caught,
        atomic_write(tmp_path / "a"),
    ):
        raise error
    message = describe_os_error(caught.value)
    assert (os.strerror(code) if code else "the reason") in message
    assert not code or message.startswith(f"{tmp_path / 'a'}: ")


@pytest.mark.parametrize("data", [b"{", b"[1]", b'{"a": "\\ud83d"}', b"\xff", b"[" * 100_000])
def test_what_is_not_a_json_object_is_refused_with_its_place(data):
    with pytest.raises(UserError, match="m.jsonl line 3"):
        parse_object(data, "m.jsonl line 3")


def test_a_checkpoint_is_written_beside_its_place(settings, tmp_path, monkeypatch):
    """Not in the system's temporary folder: a move from another disk is not atomic."""

    def refuse(*arguments, **named):
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    call("with", *settings, f"log_dir={tmp_path}", "max_steps=1", "prompt_type=none")
    assert list(tmp_path.glob("*/version_0/checkpoints/*-last.pt"))
