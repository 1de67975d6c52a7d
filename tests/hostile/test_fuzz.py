"""Files from strangers: each is read, or refused in one line; none runs code or fills the memory.

`python -m benchmarks.fuzz` does the same for minutes and measures.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.hostile.inputs import mutated
from benchmarks.hostile.readers import READERS, REFUSALS
from clip.inference.readers import read_rows
from clip.utils.errors import UserError
from vilt.utils.manifest import read_entries
from vilt.utils.raw import RawDataError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*decompression bomb", "ignore:.*torch.jit.script", "ignore:.*Truncated File Read"
)
QUICK = [name for name in READERS if name != "arrow, as a picture"]
PROPERTY = settings(deadline=None, max_examples=15, database=None,
                    suppress_health_check=list(HealthCheck))  # fmt: skip


@pytest.fixture(scope="module", params=QUICK)
def reader(request, tmp_path_factory):
    made = READERS[request.param](tmp_path_factory.mktemp("reader"))
    return made, {path: path.read_bytes() for path in made.targets}


@PROPERTY
@given(st.data(), st.randoms(use_true_random=False))
def test_a_spoiled_file_is_read_or_refused(reader, data, rng):
    made, good = reader
    path = data.draw(st.sampled_from(made.targets))
    path.write_bytes(mutated(path.name, good[path], list(good.values()), rng))
    try:
        made.read(path)
    except REFUSALS as refusal:
        told = str(refusal)
    else:
        told = "it was read"
    finally:
        path.write_bytes(good[path])
    assert len(told.splitlines()) == 1


HEAD = b"image,text,label\n"
UMLAUT = "image,text,label\n,ä,a\n"
CELLS = [
    (HEAD, "empty"),
    (HEAD + b",a\n", "refused"),
    (HEAD + b",a,b,c\n", "refused"),
    (HEAD + b',"a\n', "refused"),
    (b"image,text,text,label\n,a,b,c\n", "refused"),
    (UMLAUT.encode("utf-16"), "refused"),
    (UMLAUT.encode("utf-8-sig"), ["ä"]),
    (HEAD + b"\n,a,b\n\n,c,d\n", ["a", "c"]),
    (HEAD + b",NA,b\n", ["NA"]),
    (HEAD + b",a\0b,c\r\n", ["a\0b"]),
]


@pytest.mark.parametrize("suffix", [".csv", ".CSV"])
@pytest.mark.parametrize(("content", "wanted"), CELLS)
def test_both_readers_of_csv_have_the_same_rules(content, wanted, suffix, tmp_path):
    path = tmp_path / f"t{suffix}"
    path.write_bytes(content)

    def verdict(read):
        try:
            return read() or "empty"
        except (UserError, RawDataError) as error:
            return "empty" if "no rows" in str(error) else "refused"

    def predicted():
        rows = list(read_rows(path))
        if any(row.fault for row in rows):
            raise UserError("a row is")
        return [row.text for row in rows]

    assert verdict(predicted) == wanted
    assert verdict(lambda: [entry.text for entry in read_entries(path)]) == wanted
