"""The reader of users' tables: three formats, the same cells."""

import pandas as pd
import pytest

from clip.utils.errors import UserError
from clip.utils.tables import read_table


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_a_csv_of_a_spreadsheet_program(tmp_path):
    data = b'\xef\xbb\xbfimage, text,label\r\n1.png,"two\r\nlines",1.0\r\n\r\n,x,' + b"long " * 50_000 + b"\r\n"
    frame = read_table(write(tmp_path / "a.CSV", data))
    assert frame.columns.tolist() == ["image", "text", "label"]
    assert frame.index.tolist() == [1, 2]
    assert frame.loc[1].tolist() == ["1.png", "two\r\nlines", "1.0"]
    assert frame.loc[2].tolist() == [None, "x", "long " * 50_000]


def test_jsonl_and_parquet_keep_the_types_of_their_cells(tmp_path):
    write(tmp_path / "a.jsonl", '{"a": [1, "x"], "b": 9007199254740993}\n\n{"b": NaN, "c": true}\n')
    frame = read_table(tmp_path / "a.jsonl")
    assert frame.to_dict("list") == {"a": [[1, "x"], None], "b": [9007199254740993, None], "c": [None, True]}
    pd.DataFrame({"a": [[1], None], "b": [{"bytes": b"1", "path": None}, None]}).to_parquet(tmp_path / "a.parquet")
    frame = read_table(tmp_path / "a.parquet")
    assert frame.to_dict("list") == {"a": [[1], None], "b": [{"bytes": b"1", "path": None}, None]}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_words_that_pandas_writes_for_empty_cells_are_empty_and_counted(tmp_path, capsys, kind):
    words = ["nan", "NULL", "None", "N/A", "a"]
    frame, path = pd.DataFrame({"text": words}), tmp_path / f"a.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    assert read_table(path)["text"].tolist() == [None, None, None, None, "a"]
    assert " 4 " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "data", "named"),
    [
        ("a.txt", "a\n1\n", "a.txt"),
        ("a.csv", "a,b, a\n1,2,3\n", "'a'"),
        ("a.csv", "a,b\n1,2\n1\n", "row 2"),
        ("a.csv", "a,b\n1,2,3\n", "row 1"),
        ("a.csv", 'a,b\n1,"open\n', "a.csv"),
        ("a.csv", b"a,b\n1,\xff\n", "a.csv"),
        ("a.jsonl", '{"a": 1}\n{', "row 2"),
        ("a.parquet", "PAR1", "a.parquet"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(tmp_path, name, data, named):
    with pytest.raises(UserError, match=named) as caught:
        read_table(write(tmp_path / name, data))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="gone"):
        read_table(tmp_path / f"gone_{name}")
