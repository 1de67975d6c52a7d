"""ViLT against transformers, against a slow oracle of one sample at a time, and its files."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BertTokenizerFast, ViltForMaskedLM
from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil

from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules import build_model
from clip.modules.backbones.vilt import BertTokenizer, convert_vilt, load_vilt, vilt_positions
from clip.modules.backbones.vilt_convert import ORIGINAL, stretch
from clip.modules.prompted_vilt import PromptedViLT, ViltSettings, blank
from clip.modules.prompts import PROMPT_TYPES
from clip.transforms import ViltTransform
from clip.utils.errors import UserError
from tests import tiny_vilt
from tests.modules.test_methods import OTHER, assert_same, with_loss
from tests.oracles.vilt import SlowViLT

MIXED = [COMPLETE, MISSING_TEXT, MISSING_IMAGE, COMPLETE, MISSING_IMAGE]
WIDE = {
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "image_size": 128,
}
ODD = [(96, 128), (64, 96), (32, 160), (96, 96), (128, 32)]
SETTINGS = [  # beside the defaults of every method
    ("coop", {"per_case": True}),
    ("dept", {"base": "dcp"}),
    ("dcp", {"formulas": "paper"}),
    ("dcp", {"generator": "none"}),
    ("dcp", {"source": "own"}),
    ("dcp", {"dynamic_depth": 2}),
    ("dcp", {"common_depth": 3, "dynamic_depth": 2, "prompt_depth": 1}),
    ("dcp", {"prompts": "A"}),
    ("msp", {"attention": False}),
    ("bitfit", {"projections": "v"}),
]
TWO_TOWERS = ("mora", "dpl", "aoept")  # methods that need them
ROWS = [*((name, {}) for name in PROMPT_TYPES if name not in TWO_TOWERS), *SETTINGS]


@pytest.fixture(scope="module")
def vilt():
    return tiny_vilt.random_vilt()


def build(vilt, prompt_type, **changes):
    torch.manual_seed(3)
    shape = {"prompt_length": 6, "prompt_depth": 2, "activation": "gelu"} | changes
    model = build_model(convert_vilt(vilt.state_dict()), prompt_type, 5, backbone="vilt", **shape).eval()
    with torch.no_grad():  # every value away from its start, so that a forgotten one shows
        for name in model.trainable_names():
            parameter = model.get_parameter(name)
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def arguments(batch):
    return [batch[key] for key in ("image", "tokens", "missing_type", "present")]


@pytest.mark.parametrize("prompt_type", TWO_TOWERS)
def test_a_method_of_two_towers_is_refused_by_name(vilt, prompt_type):
    with pytest.raises(UserError, match=prompt_type):
        build(vilt, prompt_type)


def test_plain_vilt_is_that_of_transformers(vilt):
    batch = PromptedViLT.collate(tiny_vilt.pairs([COMPLETE] * 5, ODD))
    model = build(vilt, "none")
    with torch.no_grad():
        model.stream.pooler.load_state_dict(vilt.pooler.dense.state_dict())
    mask = torch.zeros(5, *batch["image"].shape[2:], dtype=torch.long)
    for row, (high, wide) in zip(mask, ODD, strict=True):
        row[:high, :wide] = 1
    ids = batch["tokens"]
    theirs = vilt(ids, (ids != 0).long(), pixel_values=batch["image"], pixel_mask=mask)
    ours = model.features(*arguments(batch))
    torch.testing.assert_close(ours, theirs.pooler_output, atol=1e-5, rtol=0)
    # Counted by the model itself, if all images fill the batch.
    whole = PromptedViLT.collate(tiny_vilt.pairs([COMPLETE] * 2, [(64, 160)] * 2))
    ids = whole["tokens"]
    theirs = vilt(ids, (ids != 0).long(), pixel_values=whole["image"])
    ours = model.features(whole["image"], ids, whole["missing_type"])
    torch.testing.assert_close(ours, theirs.pooler_output, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("prompt_type", "changes", "shape", "cases", "sizes"),
    [
        *((*row, {}, MIXED, ODD) for row in ROWS),
        *((row[0], OTHER, WIDE, MIXED[1:4], ODD[2:]) for row in ROWS if not row[1]),
    ],
)
def test_every_method_equals_the_slow_form(prompt_type, changes, shape, cases, sizes):
    model = build(tiny_vilt.random_vilt(**shape), prompt_type, **changes)
    batch = PromptedViLT.collate(tiny_vilt.pairs(cases, sizes))
    both = model.heads(*arguments(batch)), SlowViLT(model).heads(*arguments(batch)[:3], sizes)
    assert_same(model, *(with_loss(model, heads, batch["missing_type"]) for heads in both))


def test_what_the_release_initialises_and_trains(vilt):
    torch.manual_seed(0)
    state = convert_vilt(vilt.state_dict())
    model = build_model(state, "mmp_attention", 5, 8, 2, backbone="vilt")
    prompts = model.prompts.layers["joint"]
    ones = [
        [(prompts[layer, case] == 1).all(1).nonzero().flatten().tolist() for case in range(3)] for layer in range(2)
    ]
    assert ones == [[[0, 4], [2, 6], [1, 5]]] * 2
    assert prompts.sum() == 2 * 6 * 128
    names = model.trainable_names()
    assert names[:3] == ["stream.pooler.weight", "stream.pooler.bias", "prompts.layers.joint"]
    assert len(names) == 3 + 6
    with pytest.raises(UserError, match="prompt_length=4 .*6"):
        build_model(state, "mmp_attention", 5, 4, 2, backbone="vilt")
    for setting, value in (("dynamic_generator", "max"), ("dynamic_queries", "fixed")):
        with pytest.raises(UserError, match=f"dcp.{setting}={value} "):
            build_model(state, "dcp", 5, 6, 2, backbone="vilt", **{setting: value})


def test_text_positions_are_stretched():
    two = torch.tensor([[0.0, 10.0], [1.0, 30.0]])
    wanted = [[0.0, 10.0], [0.25, 15.0], [0.75, 25.0], [1.0, 30.0]]
    assert stretch(two, 4).tolist() == wanted
    assert stretch(two, 2) is two
    lengths = [vilt_positions(ViltSettings(), task) for task in ("mmimdb", "food101", "hatememes")]
    assert lengths == [1024, 512, 128]


def test_an_empty_text_keeps_its_ends():
    ids = torch.tensor([[2, 7, 8, 3, 0], [2, 3, 0, 0, 0], [2, 5, 6, 7, 3]])
    assert blank(ids).tolist() == [[2, 3, 0, 0, 0]] * 3


@pytest.mark.parametrize("form", ["hugging face", "with a head", "original"])
def test_files_of_both_layouts(tmp_path, vilt, form):
    folder = tiny_vilt.write_vilt(tmp_path)
    if form == "with a head":
        head = ViltForMaskedLM(vilt.config)
        head.vilt.load_state_dict(vilt.state_dict())
        head.save_pretrained(folder)
    if form == "original":
        (folder / "model.safetensors").unlink()
        tensors = ORIGINAL.write(convert_vilt(vilt.state_dict()))
        torch.save({"state_dict": tensors | {"mlm_score.bias": torch.zeros(3)}}, folder / "x.ckpt")
        folder = folder / "x.ckpt"
    frozen = load_vilt(str(folder), None, ViltSettings(max_text_len=50), "mmimdb")
    wanted = convert_vilt(vilt.state_dict())
    wanted["text_positional_embedding"] = stretch(wanted["text_positional_embedding"], 50)
    assert frozen.state.keys() == wanted.keys()
    assert all(torch.equal(frozen.state[name], wanted[name]) for name in wanted)
    assert frozen.settings.max_text_len == frozen.sizes.context == 50


def test_texts_are_those_of_bert(tmp_path):
    folder = tiny_vilt.write_vilt(tmp_path)
    tokens, bert = BertTokenizer.from_folder(folder, 8), BertTokenizerFast.from_pretrained(folder)
    texts = ["The DAY.", "", "a b c d e f g h", "x" * 300]
    ids = tokens(texts)
    assert ids.shape == (4, 8)
    assert ids[0].tolist()[:5] == bert("the day.")["input_ids"]
    assert ids[1].tolist() == [2, 3, 0, 0, 0, 0, 0, 0]
    assert ids[2].tolist() == [2, 5, 6, 7, 8, 9, 10, 3]
    assert tokens.lengths(texts)[:3] == [5, 2, 10]
    assert 0 not in tokens(["a [PAD] b [SEP] c"])  # letters, neither padding nor an end


@pytest.mark.parametrize("size", [(1, 1), (500, 375), (375, 500), (640, 200), (1000, 64)])
def test_images_are_those_of_transformers(size):
    pixels = torch.randint(256, (size[1], size[0], 3), dtype=torch.uint8).numpy()
    image, transform = Image.fromarray(pixels), ViltTransform(384)
    ours = transform(image)
    if min(transform.shape(*size)) > 32 or size == (1, 1):
        theirs = ViltImageProcessorPil()(image, return_tensors="pt")["pixel_values"][0]
        assert ours.shape == theirs.shape
        ours = transform.normalize(ours)
        half = ViltImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3)
        theirs = half(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert transform.placeholder(size).shape == transform(image).shape
    assert transform.placeholder().shape == (3, 384, 384)


def spoilt(change):
    """Change the tensors of a file."""

    def spoil(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


NORM = "layernorm.weight"  # of the last norm, in Hugging Face's layout
WORDS = "embeddings.text_embeddings.word_embeddings.weight"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "vocab.txt").unlink(), "vocab.txt or tokenizer.json"),
        (lambda folder: (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n"), r"vocab.txt .*\[CLS\], \[PAD\], \[SEP\]"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "model.safetensors"),
        (spoilt(lambda t: t.update({NORM: torch.ones(5)})), r"layernorm.weight .*\(5,\)"),
        (spoilt(lambda t: t.update({NORM: t[NORM] * float("nan")})), "layernorm.weight .* finite"),
        (spoilt(lambda t: t.update({WORDS: torch.ones(3)})), f"{WORDS} .*(3,)"),
        (spoilt(lambda t: t.update({WORDS: t[WORDS][:9]})), "weights for 9"),
        (
            lambda folder: (
                torch.save({"a": torch.ones(2)}, folder / "pytorch_model.bin")
                or (folder / "model.safetensors").unlink()
            ),
            "missing",
        ),
    ],
)
def test_files_that_are_no_vilt(tmp_path, spoil, words):
    folder = tiny_vilt.write_vilt(tmp_path)
    spoil(folder)
    with pytest.raises(UserError, match=words):
        load_vilt(str(folder), None, ViltSettings(), "mmimdb")
