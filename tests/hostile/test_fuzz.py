"""Damaged files: each is read or rejected with one line, without another error, a crash or a hang.

`make fuzz` runs this for longer, with new random files each time.
"""

import faulthandler
import os
from contextlib import chdir

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip.utils.errors import UserError
from tests.hostile.damage import damaged
from tests.hostile.readers import READERS, read, write_files

common = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("short", max_examples=20, derandomize=True, **common)
settings.register_profile("long", max_examples=2000, print_blob=True, **common)
profile = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture(scope="module")
def folder(clip_folder, tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("valid"), clip_folder)


@pytest.mark.parametrize("reader", READERS)
@profile
@given(data=st.data())
def test_damaged_file_is_read_or_rejected_with_one_line(reader, data, folder):
    files, command = READERS[reader]
    file = folder / data.draw(st.sampled_from(files.split()))
    valid = file.read_bytes()
    file.write_bytes(data.draw(st.just(valid) | damaged(file.suffix, valid)))
    faulthandler.dump_traceback_later(120, exit=True)  # a hang
    try:
        with chdir(folder):
            read(command, str(file))
    except UserError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017  a file that can be read raises nothing
        assert file.read_bytes() != valid
    finally:
        faulthandler.cancel_dump_traceback_later()
        file.write_bytes(valid)
