"""Masks of others: every format is read correctly, or refused without running its code."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from clip.missing.importers import SUFFIXES, import_mask
from clip.utils.errors import UserError
from tests.toy_tables import TOY_MASK, damages, refusal


def _flags(ids):
    """Records of TOY_MASK as AOEPT's preprocessing writes them to its jsonl."""
    return [
        {"id": key, "text_missing": case == 1, "image_missing": case == 2}
        for key, case in zip(ids, TOY_MASK, strict=True)
    ]


def _write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n\n" for record in records))
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bfloat16])
def test_pt(tmp_path, dtype):
    path = tmp_path / "mmimdb_train_missing_both_07.pt"
    torch.save(torch.tensor(TOY_MASK, dtype=dtype), path)
    mask = import_mask(path, 10, "train")
    assert mask.dtype == np.uint8
    assert mask.tolist() == TOY_MASK


def test_npz(tmp_path):
    mask, path = np.array(TOY_MASK, dtype=np.float64), tmp_path / "m.npz"
    for arrays in ({"anything": mask}, {"train": mask, "val": mask[::-1]}):
        np.savez(path, **arrays)
        assert import_mask(path, 10, "train").tolist() == TOY_MASK
    assert str(path) in refusal(import_mask, path, 10, "test")


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        (list(range(162024, 162034)), [f"0{key}" for key in range(162024, 162034)]),
        ([f"apple_pie_{key}" for key in range(10)], [f"apple_pie_{key}.jpg" for key in range(10)]),
        (list(range(1235, 1245)), [f"img/{key:05d}.png" for key in range(1235, 1245)]),
        (["0", "00", "01", "1", *"abcdef"], ["0", "00", "01", "1", *"abcdef"]),
    ],
    ids=["movies", "food", "memes", "same"],
)
def test_jsonl_finds_its_rows_among_other_splits(tmp_path, written, ours):
    others = [{"id": f"other{n}", "text_missing": n, "image_missing": 0} for n in (0, 1)]
    path = _write_jsonl(tmp_path / "both-0.7.jsonl", others + _flags(written)[::-1])
    assert import_mask(path, 10, "train", ours).tolist() == TOY_MASK
    message = refusal(import_mask, path, 10, "train")
    assert "12 rows" in message
    assert "has 10" in message


def test_without_row_ids_the_order_is_that_of_the_file(tmp_path):
    path = _write_jsonl(tmp_path / "mask.jsonl", _flags("abcdefghij"))
    assert import_mask(path, 10, "train").tolist() == TOY_MASK


def test_rows_that_are_not_covered_once_are_named(tmp_path):
    path = _write_jsonl(tmp_path / "mask.jsonl", _flags("abcdefghij"))
    message = refusal(import_mask, path, 10, "train", list("abcdefghiz"))
    assert "9 of 10" in message
    assert "'z'" in message
    assert "'a'" in refusal(import_mask, path, 10, "train", list("abcdefghia"))
    _write_jsonl(path, _flags("abcdefghij") + _flags("abcdefghij")[:1])
    assert "'a'" in refusal(import_mask, path, 10, "train", list("abcdefghij"))
    _write_jsonl(path, [*_flags("abcdefghij")[:9], {"text_missing": 0, "image_missing": 0}])
    assert "id" in refusal(import_mask, path, 10, "train", list("abcdefghij"))
    np.savez(tmp_path / "short.npz", np.array(TOY_MASK))
    message = refusal(import_mask, tmp_path / "short.npz", 12, "val")
    assert "10 rows" in message
    assert "val split has 12" in message


def test_csv(tmp_path):
    path = tmp_path / "mask.csv"
    flags = [f"{r['id']},{r['text_missing']},{r['image_missing']:.1f}" for r in _flags(range(10))]
    lines = ["id,text_missing,image_missing", *flags[::-1]]
    path.write_text("\n".join(lines), encoding="utf-8-sig")  # with the mark that Excel writes
    assert import_mask(path, 10, "train", range(10)).tolist() == TOY_MASK
    for number in (int, float):
        path.write_text("\n".join(["missing_type", *(str(number(case)) for case in TOY_MASK)]))
        assert import_mask(path, 10, "train", range(10)).tolist() == TOY_MASK


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"text_missing": True, "image_missing": True}, "image_missing="),
        ({"text_missing": 1, "image_missing": "1"}, "image_missing='1'"),
        ({"text_missing": True}, "image_missing"),
        ({"text_missing": "perhaps", "image_missing": 0}, "'perhaps'"),
        ({"missing_type": 3}, "missing_type=3"),
        ({"missing_type": True}, "missing_type"),
        ({}, ""),
        (7, ""),
        ([], ""),
    ],
)
def test_a_record_without_a_case_is_refused(tmp_path, record, expected):
    path = _write_jsonl(tmp_path / "mask.jsonl", [record])
    message = refusal(import_mask, path, 1, "train")
    assert expected in message
    assert str(path) in message


def test_an_unknown_case_and_an_unknown_suffix_are_named(tmp_path):
    torch.save(torch.tensor([0.0, 3.0]), tmp_path / "mask.pt")
    assert "3.0 in row 1" in refusal(import_mask, tmp_path / "mask.pt", 2, "train")
    assert ", ".join(SUFFIXES) in refusal(import_mask, tmp_path / "mask.pkl", 1, "train")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", b"[1", b"\xff", b'"' + b"1" * 200_000])
def test_absent_and_foreign_files_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"mask{suffix}"
    if content is not None:
        path.write_bytes(content)
    assert str(path) in refusal(import_mask, path, 1, "train")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "legacy", "npz"])
def test_a_damaged_file_never_crashes(tmp_path, kind):
    path = tmp_path / ("mask.npz" if kind == "npz" else "mask.pt")
    if kind == "npz":
        np.savez_compressed(path, np.array(TOY_MASK))
    else:
        torch.save(torch.tensor(TOY_MASK), path, _use_new_zipfile_serialization=kind == "zip")
    refused = 0
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        try:
            import_mask(path, 10, "train")
        except UserError:
            refused += 1
    assert refused > len(damaged)


def test_a_file_that_claims_a_petabyte_is_refused(tmp_path):
    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (10**15,)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(tmp_path / "mask.npz", "w") as file:
        file.writestr("mask.npy", header.getvalue())
    assert "mask.npz" in refusal(import_mask, tmp_path / "mask.npz", 1, "train")


class _Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "npz"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, kind):
    proof = tmp_path / "executed"
    path = tmp_path / ("mask.npz" if kind == "npz" else "mask.pt")
    content = io.BytesIO()
    if kind == "npz":
        np.savez(content, np.array([_Payload(proof)], dtype=object))
    elif kind == "zip":
        torch.save(_Payload(proof), content)
    else:
        pickle.dump(_Payload(proof), content, protocol=2)
    path.write_bytes(content.getvalue())
    assert str(path) in refusal(import_mask, path, 1, "train")
    assert not proof.exists()
    pickle.loads(pickle.dumps(_Payload(proof)))
    assert proof.exists()  # the payload does work where it is allowed to
