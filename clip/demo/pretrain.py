"""Pretrain a small CLIP on the image-text pairs of an arrow file, for machines without a network.

The result is a folder with weights, config and tokenizer that can be used as ``vit=`` like any other CLIP.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer as BytePairs
from tokenizers import models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from tqdm import tqdm
from transformers import CLIPTokenizer, get_cosine_schedule_with_warmup

from clip.config import PretrainSettings
from clip.datasets import ArrowDataset
from clip.missing import COMPLETE
from clip.modules.backbones.clip import save_clip
from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.backbones.clip_tokenizer import WORD_END, Tokenizer, clean, vocabulary
from clip.modules.vision_transformer_prompts import TextTransformer, VisionTransformer, finish
from clip.transforms import ClipTransform
from clip.utils.errors import UserError

PATCH = 8  # pixels
CONTEXT, VOCABULARY = 77, 2048  # context length, and maximum vocabulary size
ACTIVATION = "quick_gelu"
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.1
WARMUP = 0.1  # share of all steps
MIN_SCALE, TOKEN_DROPOUT = 0.9, 0.1  # augmentation: smallest side of a crop, share of tokens left out
INIT_LOGIT_SCALE, MAX_LOGIT_SCALE = math.log(1 / 0.07), math.log(100)  # as OpenAI trained
ENCODED = 256  # pairs that are encoded at once after training


class ContrastiveModule(pl.LightningModule):
    """A CLIP that is trained to match images and texts (Radford et al., 2021, Figure 3)."""

    def __init__(self, image_size: int, width: int, layers: int, vocabulary: int):
        super().__init__()
        grid = image_size // PATCH
        sizes = ClipSizes(width, layers, PATCH, grid, width, layers, CONTEXT, vocabulary, embed_dim=width)
        self.visual, self.text = VisionTransformer(sizes, ACTIVATION), TextTransformer(sizes, ACTIVATION)
        self.logit_scale = nn.Parameter(torch.tensor(INIT_LOGIT_SCALE))

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised features, (B, D) each, of images (B, 3, S, S) in 0..255 and of texts (B, 77)."""
        end = tokens.argmax(dim=1)
        image = finish(self.visual.encode(self.visual.embed(ClipTransform.normalize(pixels)), []))
        text = finish(self.text.encode(self.text.embed(tokens), [], tokens, int(end.max()) + 1))
        return F.normalize(image, dim=-1), F.normalize(text, dim=-1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the contrastive loss on augmented pairs."""
        image, text = self(crop_and_flip(batch[0]), drop_tokens(batch[1]))
        logits = self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp() * image @ text.T
        target = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        """Return AdamW with warm-up and cosine decay; norms and biases have no weight decay."""
        plain = {"params": [p for p in self.parameters() if p.ndim <= 1], "weight_decay": 0}
        groups = [{"params": [p for p in self.parameters() if p.ndim > 1]}, plain]
        optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = get_cosine_schedule_with_warmup(optimizer, int(WARMUP * steps), steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def crop_and_flip(pixels: Tensor) -> Tensor:
    """Crop each image at random and flip half of them: (B, 3, S, S) uint8 to float."""
    count, device = len(pixels), pixels.device
    scale = torch.empty(count, device=device).uniform_(MIN_SCALE, 1)
    flip = torch.randint(2, (count,), device=device) * 2 - 1
    zoom = torch.stack([scale * flip, scale], 1).diag_embed()  # (B, 2, 2)
    shift = (2 * torch.rand(count, 2, 1, device=device) - 1) * (1 - scale)[:, None, None]
    grid = F.affine_grid(torch.cat([zoom, shift], 2), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)


def drop_tokens(tokens: Tensor) -> Tensor:
    """Drop a random share of the tokens between start and end of each text: (B, 77) to (B, 77), without gaps."""
    position = torch.arange(tokens.shape[1], device=tokens.device)
    inner = (position > 0) & (position < tokens.argmax(dim=1, keepdim=True))
    dropped = inner & (torch.rand(tokens.shape, device=tokens.device) < TOKEN_DROPOUT)
    return tokens.masked_fill(dropped, 0).gather(1, dropped.int().argsort(dim=1, stable=True))


def complete_samples(dataset: ArrowDataset) -> list[int]:
    """Return the samples that have both an image and a text."""
    return np.flatnonzero(dataset.observed[dataset.rows] == COMPLETE).tolist()


def read_pairs(dataset: ArrowDataset, tokenizer: Tokenizer, size: int) -> TensorDataset:
    """Decode the complete samples of a split into memory: pixels (N, 3, size, size) uint8 and ids (N, 77)."""
    complete, transform = complete_samples(dataset), ClipTransform(size)
    pixels = torch.empty(len(complete), 3, size, size, dtype=torch.uint8)
    for slot, index in enumerate(tqdm(complete, desc="decoding", unit="image")):
        pixels[slot] = dataset.image(int(dataset.rows[index]), transform)
    return TensorDataset(pixels, tokenizer(dataset.text(index) for index in complete))


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Train byte pairs on texts; ``size`` is the number of tokens, at least the 514 that need no merge."""
    splitter = CLIPTokenizer(vocab=vocabulary([]), merges=[]).backend_tokenizer
    trained = BytePairs(models.BPE(end_of_word_suffix=WORD_END))
    trained.normalizer, trained.pre_tokenizer = splitter.normalizer, splitter.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False, end_of_word_suffix=WORD_END
    )
    trained.train_from_iterator(map(clean, texts), trainer)
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    merges = merges[: size - len(vocabulary([]))]
    return Tokenizer(vocabulary(merges), merges, CONTEXT)


def recall_at(k: int, similarity: Tensor) -> float:
    """Return the share of rows of a square matrix (N, N) whose diagonal entry is among the ``k`` largest."""
    ranks = (similarity > similarity.diagonal()[:, None]).sum(dim=1)
    return float((ranks < k).float().mean())


@torch.inference_mode()
def print_retrieval(module: ContrastiveModule, pairs: TensorDataset) -> None:
    """Print the recall at 1 and 10 of image-text retrieval among all pairs, in both directions."""
    features = [module(*(tensor.to(module.device) for tensor in batch)) for batch in DataLoader(pairs, ENCODED)]
    image, text = (torch.cat(part).float().cpu() for part in zip(*features, strict=True))
    count = len(pairs)
    print(f"retrieval among {count} validation pairs:")
    for name, similarity in (("image to text", image @ text.T), ("text to image", text @ image.T)):
        print(f"  {name}: R@1 {recall_at(1, similarity):.1%}, R@10 {recall_at(10, similarity):.1%}")
    print(f"  chance: R@1 {1 / count:.1%}, R@10 {min(10 / count, 1):.1%}")


def train_clip(train: ArrowDataset, val: ArrowDataset | None, trainer: pl.Trainer, settings: PretrainSettings) -> Path:
    """Train a small CLIP on image-text pairs and save it as a folder for ``vit=``.

    All pairs of ``val`` measure the retrieval accuracy.
    """
    folder, size = Path(settings.target), settings.image_size
    if (folder / "model.safetensors").exists():
        raise UserError(f"pretrain.target={folder} already contains a CLIP; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)  # first, so that an invalid path fails before training
    if not (complete := complete_samples(train)):
        raise UserError(f"{train.place} has no sample with image and text; pretrain needs such pairs")
    tokenizer = train_tokenizer((train.text(index) for index in complete), VOCABULARY)
    module = ContrastiveModule(size, settings.width, settings.layers, len(tokenizer.vocab))
    pairs = read_pairs(train, tokenizer, size)
    # Slices whole batches: stacking pairs one by one takes longer than a step on a GPU.
    batches = BatchSampler(RandomSampler(pairs), min(settings.batch_size, len(pairs)), drop_last=True)
    trainer.fit(module, DataLoader(pairs, batch_size=None, sampler=batches))
    if val is not None and complete_samples(val):
        print_retrieval(module.eval(), read_pairs(val, tokenizer, size))
    # OpenAI's names have no prefix for the text tower.
    weights = {name.removeprefix("text."): tensor.cpu() for name, tensor in module.state_dict().items()}
    save_clip(folder, weights, ACTIVATION, tokenizer)
    return folder
