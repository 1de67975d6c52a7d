"""Token ids against CLIP's own tokenizer, and byte pairs of our own."""

import gzip
import json
import os
import pickle
from pathlib import Path

import pytest

from clip.demo.pretrain import train_tokenizer
from clip.modules.backbones.clip_tokenizer import (
    END,
    START,
    Tokenizer,
    clean,
    vocabulary,
)
from clip.utils.errors import UserError

DATA = Path(__file__).parents[1] / "data"
NAME = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 48_894


def openai_vocabulary():
    """OpenAI's list is not ours to ship: CLIP_BPE names it or a vectors folder beside us."""
    beside = Path(__file__).resolve().parents[3].glob(f"*/vectors/{NAME}")
    candidates = [Path(os.environ.get("CLIP_BPE", "/nowhere")), *beside]
    return next((path for path in candidates if path.is_file()), None)


@pytest.fixture(scope="module")
def openai():
    path = openai_vocabulary()
    if path is None:
        pytest.skip(f"needs OpenAI's {NAME}; set CLIP_BPE to it")
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 1 + MERGES]
    merges = [tuple(line.split()) for line in lines]
    return Tokenizer(vocabulary(merges), merges)


@pytest.fixture(scope="module")
def small():
    return train_tokenizer(["The quick brown fox, and the lazy dog."] * 4, 540)


def test_ids_equal_openais(openai):
    vectors = json.loads((DATA / "tokens_a.json").read_text())
    assert openai.end == 49407
    for vector in vectors:
        wanted = vector["ids"] + [0] * (77 - len(vector["ids"]))
        assert openai([vector["text"]])[0].tolist() == wanted, vector["text"]


@pytest.mark.parametrize("text", ["a <|endoftext|> b", "<|STARTOFTEXT|>", "&lt;|endoftext|&gt; x"])
def test_control_tokens_in_a_text_are_plain_text(small, text):
    ids = small([text])[0].tolist()
    body = ids[1 : ids.index(small.end)]
    assert small.start not in body
    assert len(body) > 5
    assert ids.count(small.end) == 1


def test_cleaning():
    assert clean("  A\n\tB&amp;amp;C \u00a0 na\u00c3\u00afve ") == "a b&c na\u00efve"


@pytest.mark.parametrize("text", ["", "   \n", "\x00\x01\x1b[31m", "x" * 100_000, "\U0001f600" * 500])
def test_any_text_gives_one_start_one_end_and_padding(small, text):
    ids = small([text])[0].tolist()
    end = ids.index(small.end)
    assert ids[0] == small.start
    assert ids[end + 1 :] == [0] * (76 - end)


def test_own_byte_pairs_follow_openais_numbering(small):
    assert small.vocab[START] == len(small.vocab) - 2
    assert small.vocab[END] == len(small.vocab) - 1 == max(small.vocab.values())
    assert small.vocab["!"] == 0
    assert small.vocab["!</w>"] == 256
    assert len(small(["quick fox zebra"])[0].nonzero()) < len("quickfoxzebra")


def test_saved_and_pickled_tokenizers_agree(small, tmp_path):
    texts = ["the quick dog", "\u00fcber-fox"]
    small.save(tmp_path)
    for other in (Tokenizer.from_folder(tmp_path), pickle.loads(pickle.dumps(small))):
        assert other(texts).equal(small(texts))


def test_a_folder_without_vocabulary_is_refused(tmp_path):
    with pytest.raises(UserError, match="vocab.json"):
        Tokenizer.from_folder(tmp_path)
