"""Without prompts both towers are CLIP's: against transformers, over all sizes and activations."""

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from clip.missing import COMPLETE
from clip.modules import build_model
from clip.modules.backbones.clip import convert_clip

VOCABULARY, CONTEXT, BATCH = 60, 20, 3
HEAD = 64
# patch, grid, (width, layers) of the image tower, the same of the text tower, width of the feature
SIZES = {
    "tiny": (4, 2, (64, 1), (64, 1), 16),
    "wide text": (8, 3, (64, 2), (192, 3), 40),
    "B/32": (32, 7, (192, 2), (128, 2), 128),
    "B/16": (16, 14, (192, 2), (128, 2), 128),
    "L/14": (14, 16, (256, 2), (192, 1), 192),
    "L/14@336px": (14, 24, (256, 2), (192, 1), 192),
}


def oracle(size, activation):
    """A CLIPModel whose every tensor is random: also norms, biases and the class embedding."""
    patch, grid, *towers, embed = SIZES[size]
    vision, text = (
        {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // HEAD,
            "hidden_act": activation,
        }
        for width, layers in towers
    )
    vision |= {"patch_size": patch, "image_size": patch * grid}
    text |= {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": VOCABULARY - 2,
        "eos_token_id": VOCABULARY - 1,
    }
    torch.manual_seed(0)
    config = CLIPConfig(vision_config=vision, text_config=text, projection_dim=embed)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def batch(size):
    patch, grid, *_ = SIZES[size]
    tokens = torch.zeros(BATCH, CONTEXT, dtype=torch.long)
    for row, length in zip(tokens, (1, 7, CONTEXT - 2), strict=True):
        row[0], row[length + 1] = VOCABULARY - 2, VOCABULARY - 1
        row[1 : length + 1] = torch.randint(1, VOCABULARY - 2, (length,))
    return torch.randn(BATCH, 3, patch * grid, patch * grid), tokens


def features(model, image, tokens):
    seen = model.visual_projection(model.vision_model(image).pooler_output)
    read = model.text_projection(model.text_model(tokens).pooler_output)
    return torch.cat([seen, read], dim=1)


def built(size, activation, trained_with=None):
    """Our model and transformers', and a batch for them."""
    theirs = oracle(size, trained_with or activation)
    state = convert_clip(theirs.state_dict())
    ours = build_model(state, "none", 2, activation=activation).eval()
    image, tokens = batch(size)
    complete = torch.full((BATCH,), COMPLETE)
    return lambda: ours.features(image, tokens, complete), lambda: features(theirs, image, tokens)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_both_towers_equal_transformers(size, activation):
    ours, theirs = built(size, activation)
    torch.testing.assert_close(ours(), theirs(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("size", ["tiny", "wide text", "B/32"])
@torch.no_grad()
def test_in_bfloat16_they_are_as_near_as_transformers_own(size, activation):
    ours, theirs = built(size, activation)
    exact = theirs().chunk(2, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found, rounded = ours().float().chunk(2, 1), theirs().float().chunk(2, 1)
    for half in range(2):  # image, text
        error, allowed = ((x[half] - exact[half]).norm() / exact[half].norm() for x in (found, rounded))
        assert 0 < error < 2**-6  # bfloat16 itself rounds by up to 2**-9 at every step
        assert error < 2 * allowed


@torch.no_grad()
def test_the_other_activation_is_told_apart():
    ours, theirs = built("tiny", "gelu", trained_with="quick_gelu")
    assert (ours() - theirs()).abs().max() > 1e-3
