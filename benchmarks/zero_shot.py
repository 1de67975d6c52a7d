"""Zero-shot accuracy of a CLIP: each test image of a single-label manifest gets the class of the most similar name.

python -m benchmarks.zero_shot --data_root datasets/type --vit datasets/clip
"""

import argparse
from pathlib import Path

import torch
from torch.nn.functional import normalize
from tqdm import tqdm

from clip.datasets import DATASETS, ArrowDataset
from clip.missing import COMPLETE, MISSING_IMAGE
from clip.modules.backbones.clip import load_clip
from clip.modules.factory import build_model
from clip.transforms import ClipTransform

BATCH = 256


@torch.inference_mode()
def main() -> None:
    """Print the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", type=Path, required=True)
    parser.add_argument("--vit", required=True)
    chosen = parser.parse_args()
    clip, files = load_clip(chosen.vit), DATASETS["manifest"]
    names = files.label_metadata(chosen.data_root)["class_names"]
    model = build_model(clip.state, "none", activation=clip.activation).eval()
    transform, width = ClipTransform(clip.sizes.image_size), clip.sizes.embed_dim
    dataset = ArrowDataset(
        *files.find(chosen.data_root, "test"),
        text_column=files.text_column,
        num_classes=len(names),
        multilabel=False,
        transform=transform,
        tokenize=clip.tokenizer,
    )
    blank, case = torch.zeros(len(names), 3, *[clip.sizes.image_size] * 2), torch.full((len(names),), MISSING_IMAGE)
    texts = normalize(model.features(blank, clip.tokenizer(names), case)[:, width:], dim=-1)
    with_image = [i for i, row in enumerate(dataset.rows) if dataset.observed[row] != MISSING_IMAGE]
    hits = 0
    for start in tqdm(range(0, len(with_image), BATCH), unit="batch"):
        samples = [dataset[i] for i in with_image[start : start + BATCH]]
        pixels = transform.normalize(torch.stack([torch.as_tensor(sample["image"]) for sample in samples]))
        tokens, case = clip.tokenizer([""] * len(samples)), torch.full((len(samples),), COMPLETE)
        nearest = (model.features(pixels, tokens, case)[:, :width] @ texts.T).argmax(dim=1)
        hits += sum(int(a) == int(sample["label"]) for a, sample in zip(nearest, samples, strict=True))
    print(f"{hits / len(with_image):.1%} of {len(with_image)} images, {len(names)} classes")


if __name__ == "__main__":
    main()
