"""Our files: what is saved comes back, and nothing else is taken for it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from clip.missing.files import file_name, load, load_or_draw, save
from clip.missing.masks import MISSING_TEXT, MissingSettings
from clip.utils.errors import UserError
from tests.toy_tables import TOY, TOY_TABLE, damages, python, refusal, toy


def test_save_and_load(tmp_path):
    path = tmp_path / "new" / "folder" / "table.npz"
    save(path, TOY_TABLE, TOY)
    assert load(path, TOY).tolist() == TOY_TABLE
    assert load(path, TOY).dtype == np.uint8
    assert [entry.name for entry in path.parent.iterdir()] == ["table.npz"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset", "food101"),
        ("split", "val"),
        ("size", 11),
        ("missing_type", "text"),
        ("ratio", 0.5),
        ("both_ratio", 0.25),
        ("seed", 8),
    ],
)
def test_load_refuses_every_other_setting_with_both_values(tmp_path, key, value):
    path = tmp_path / "table.npz"
    save(path, TOY_TABLE, TOY)
    message = refusal(load, path, toy(**{key: value}))
    assert f"{key}={getattr(TOY, key)!r}" in message
    assert f"{key}={value!r}" in message
    assert str(path) in message


@pytest.mark.parametrize(
    ("table", "expected"),
    [(TOY_TABLE[:9], "9 rows"), ([3] + TOY_TABLE[1:], "has 3 in row 0"), ([0.5] * 10, "has 0.5")],
)
def test_wrong_tables_are_neither_saved_nor_loaded(tmp_path, table, expected):
    path = tmp_path / "table.npz"
    assert expected in refusal(save, path, table, TOY)
    assert not path.exists()
    save(path, TOY_TABLE, TOY)
    saved = dict(np.load(path))
    np.savez(path, **saved | {"table": table})
    message = refusal(load, path, TOY)
    assert expected in message
    assert ("has 10" in message) == (len(table) == 9)


def test_a_damaged_file_is_refused_or_still_right(tmp_path):
    path = tmp_path / "table.npz"
    save(path, TOY_TABLE, TOY)
    whole = path.read_bytes()
    refused = []
    for damaged in damages(whole):
        path.write_bytes(damaged)
        try:
            assert load(path, TOY).tolist() == TOY_TABLE
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > len(whole)
    assert all(str(path) in message and "\n" not in message for message in refused)


def test_file_names_tell_settings_apart():
    train = MissingSettings("mmimdb", "train", 15552, "both", 0.7, 0.5, 0)
    assert file_name(train) == "mmimdb_train_missing_both_0.7_both0.5_seed0.npz"
    same = [toy(ratio=1, both_ratio=0), toy(ratio=1.0, both_ratio=-0.0)]
    assert len({file_name(settings) for settings in same}) == 1
    assert same[0] == same[1]
    different = [
        TOY,
        *(toy(ratio=ratio) for ratio in (0, 0.1, 0.01, 1.0)),
        *(toy(missing_type=kind) for kind in ("text", "image")),
        toy(both_ratio=0.51),
        toy(seed=-7),
        toy(split="val"),
        toy(dataset="toy_train"),
    ]
    assert len({file_name(settings) for settings in different}) == len(different)


def test_load_or_draw_keeps_the_file_that_is_there(tmp_path):
    assert load_or_draw(tmp_path, TOY).tolist() == TOY_TABLE
    edited = [MISSING_TEXT] * 10  # nobody would draw this one
    save(tmp_path / file_name(TOY), edited, TOY)
    assert load_or_draw(tmp_path, TOY).tolist() == edited
    message = refusal(load_or_draw, tmp_path, toy(size=12))
    assert "size=10" in message
    assert "size=12" in message


def test_a_folder_that_cannot_be_written_names_its_setting(tmp_path):
    (tmp_path / "file").write_text("in the way")
    message = refusal(load_or_draw, tmp_path / "file" / "tables", TOY)
    assert "missing_table_root" in message
    assert str(tmp_path) in message


def test_a_write_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "table.npz"
    save(path, TOY_TABLE, TOY)
    code = (
        "import resource, sys\n"
        "from clip.missing.masks import MissingSettings, draw\n"
        "from clip.missing.files import save\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # as a full disk\n"
        f"settings = {TOY!r}\n"
        "try: save(sys.argv[1], draw(settings), settings)\n"
        "except ValueError as error: print(error)\n"
    )
    out, _ = python(code, path).communicate()
    assert "missing_table_root" in out
    assert load(path, TOY).tolist() == TOY_TABLE
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.npz"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, settings = tmp_path / "table.npz", toy(1_000_000)
    table = np.zeros(settings.size)
    save(path, table, settings)
    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(save, path, table, settings) for _ in range(30)]
        while not all(writer.done() for writer in writers):
            assert len(load(path, settings)) == settings.size
    assert [writer.exception() for writer in writers] == [None] * 30


def test_racing_processes_end_with_whole_files(tmp_path):
    code = (
        "import os, sys\n"
        "from clip.missing.masks import MissingSettings, draw\n"
        "from clip.missing.files import load_or_draw\n"
        "folder, start = sys.argv[1:]\n"
        "print('ready', flush=True)\n"
        "while not os.path.exists(start): pass\n"
        "for seed in range(200):\n"
        "    settings = MissingSettings('toy', 'train', 10, 'both', 0.7, 0.5, seed)\n"
        "    assert (load_or_draw(folder, settings) == draw(settings)).all()\n"
    )
    folder, start = tmp_path / "tables", tmp_path / "start"
    racers = [python(code, folder, start) for _ in range(2)]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
    start.touch()
    for racer in racers:
        racer.communicate()
        assert racer.returncode == 0
    assert {entry.name for entry in folder.iterdir()} == {file_name(toy(seed=seed)) for seed in range(200)}
