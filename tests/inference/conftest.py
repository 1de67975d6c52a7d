"""A trained run, and its model as Python loads it."""

import pytest

import clip
from tests import predicting


@pytest.fixture(scope="module")
def run_folder(clip_folder, tmp_path_factory):
    return predicting.write_run(clip_folder, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(run_folder):
    return clip.load(run_folder)
