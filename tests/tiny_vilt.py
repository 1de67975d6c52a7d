"""A ViLT so small that everything runs in seconds, on the same code path."""

from pathlib import Path

import torch
from transformers import ViltConfig, ViltModel

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{x}" for x in LETTERS),
         ".", "&", "the", "day", "drama", "comedy", "horror")  # fmt: skip
SHAPE = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2,
         "intermediate_size": 512, "vocab_size": len(WORDS), "max_position_embeddings": 40,
         "image_size": 96, "patch_size": 32, "max_image_length": -1,
         "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip
POSITIONS = 40


def random_vilt(seed: int = 0, **changes) -> ViltModel:
    """transformers' own, its weights away from their start so that a forgotten one shows."""
    torch.manual_seed(seed)
    model = ViltModel(ViltConfig(**SHAPE | changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.1
            scale = 1.0 if "embeddings" in name and parameter.ndim > 1 else scale
            parameter.copy_(scale * torch.randn_like(parameter) + ("orm.weight" in name))
    return model


def write_vilt(folder: Path, seed: int = 0, **changes) -> Path:
    """A folder that `vit=` takes."""
    random_vilt(seed, **changes).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


def pairs(cases: list[int], sizes: list[tuple[int, int]], seed: int = 1) -> list[dict]:
    """Samples as a data set gives them: images of these heights and widths."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for i, (case, size) in enumerate(zip(cases, sizes, strict=True)):
        ids = torch.zeros(POSITIONS, dtype=torch.long)
        length = 2 + 3 * i % 11
        ids[:length] = torch.randint(5, len(WORDS), (length,), generator=generator)
        ids[0], ids[length - 1] = WORDS.index("[CLS]"), WORDS.index("[SEP]")
        image = torch.randn(3, *size, generator=generator)
        out.append({"image": image, "tokens": ids, "missing_type": torch.tensor(case)})
    return out
