"""Which pairs a small CLIP learns from: its sources, and their labels."""

import pytest

from clip.cli import build as assembly
from clip.cli.schema import validate
from clip.config import ex
from clip.demo.pretrain import read_pairs, samples_of
from clip.modules.backbones.clip import load_clip
from clip.utils.errors import UserError
from tests.conftest import SIZES


@pytest.fixture
def opened(arrow_folder):
    """Data set of a task, training split."""

    def open_task(task):
        config = validate(ex.configurations[0]() | {"data_root": str(arrow_folder), "task": task})
        return assembly.data_from_config(config, 16, tokenize=list).dataset("train")

    return open_task


def test_pairs_of_several_sources_are_joined_and_chosen_by_label(opened, clip_folder):
    films, memes = opened("mmimdb"), opened("hatememes")
    harmless = [i for i in range(len(memes)) if int(memes.labels[memes.rows[i]]) == 0]
    assert 0 < len(harmless) < len(memes)
    assert samples_of(memes, "0") == harmless
    assert samples_of(films, "") == list(range(SIZES["train"]))
    with pytest.raises(UserError, match="has no whole pair with the label 7"):
        samples_of(memes, "7")

    texts = []

    def tokenizer(given):
        texts.extend(given)
        return load_clip(str(clip_folder)).tokenizer(texts)

    pixels, ids = read_pairs([(films, [3, 1]), (memes, harmless)], tokenizer, 16).tensors
    assert texts == [films.text(3), films.text(1), *(memes.text(i) for i in harmless)]
    assert len(pixels) == len(ids) == 2 + len(harmless)
    assert (pixels[1] == films.image(int(films.rows[1]), films.transform)).all()
