"""Contrastive training of a small CLIP on the pairs of an arrow file, where no weights can be had.

The result is a CLIP of the same code as any other: a folder with weights, sizes and tokenizer,
which ``vit=`` takes and which is frozen from then on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from clip.datasets import ArrowDataset
from clip.missing import COMPLETE
from clip.modules.backbones.clip import save_clip
from clip.modules.backbones.clip_tokenizer import Tokenizer, train_tokenizer
from clip.modules.layers import HEAD_WIDTH
from clip.modules.vision_transformer_prompts import TextTransformer, VisionTransformer
from clip.transforms import ClipTransform
from clip.utils.errors import UserError

CONTEXT = 77
SMALLEST_CUT = 0.9  # of an image's side that training sees
DROPPED_TOKENS = 0.1  # share of a text's tokens that training does not see
ACTIVATION = "quick_gelu"
WEIGHT_DECAY = 0.1
WARMUP = 0.1  # share of all steps
RANKED = 200  # held-out pairs among which an image looks for its text
FIRST_SCALE, LAST_SCALE = math.log(1 / 0.07), math.log(100)  # of the logits, as OpenAI trained


@dataclass(frozen=True)
class PretrainSettings:
    """Sizes of the small CLIP and how long it learns.

    Attributes:
        target: folder to write.
        image_size: pixels, a multiple of the patch.
        patch: pixels.
        width: channels of both towers and of the feature, a multiple of 64.
        layers: of both towers.
        vocabulary: tokens.
        epochs: passes over the pairs.
        batch_size: pairs contrasted with one another.
        learning_rate: at the end of the warm-up.
        sources: whose training pairs are used, each a task or ``task:label`` for the samples with
            this label only; none for those of the run's own task.
    """

    target: str
    image_size: int
    patch: int
    width: int
    layers: int
    vocabulary: int
    epochs: int
    batch_size: int
    learning_rate: float
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        units = (
            ("width", HEAD_WIDTH, HEAD_WIDTH),
            ("image_size", self.patch, f"pretrain.patch={self.patch}"),
        )
        for name, unit, said in units:
            if (value := getattr(self, name)) % unit:
                raise UserError(f"pretrain.{name}={value} is no multiple of {said}; give one")


class ContrastiveModule(pl.LightningModule):
    """Two towers whose features of a pair are drawn together (Radford et al., 2021, Figure 3).

    Args:
        settings: sizes and learning rate.
        vocabulary: tokens of the trained tokenizer.
    """

    def __init__(self, settings: PretrainSettings, vocabulary: int):
        super().__init__()
        self.settings = settings
        shared = {"width": settings.width, "layers": settings.layers,
                  "embed_dim": settings.width, "activation": ACTIVATION}  # fmt: skip
        grid = settings.image_size // settings.patch
        self.visual = VisionTransformer(patch=settings.patch, grid=grid, **shared)
        self.text = TextTransformer(context=CONTEXT, vocabulary=vocabulary, **shared)
        self.logit_scale = nn.Parameter(torch.tensor(FIRST_SCALE))

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Give the similarities (B, B) of B images (uint8) and B texts, scaled."""
        end = tokens.argmax(dim=1)
        longest = int(end.max()) + 1
        image = self.visual.encode(self.visual.embed(ClipTransform.normalize(pixels)), [])
        text = self.text.encode(self.text.embed(tokens)[:, :longest], [], end)
        scale = self.logit_scale.clamp(max=LAST_SCALE).exp()
        return scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Contrast the pairs of a batch, varied so that they cannot be learned by heart."""
        pixels, tokens = batch
        similar = self(vary_images(pixels), vary_texts(tokens))
        target = torch.arange(len(similar), device=similar.device)
        loss = (F.cross_entropy(similar, target) + F.cross_entropy(similar.T, target)) / 2
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        """AdamW with warm-up and cosine decay; norms, biases and embeddings do not decay."""
        decay = [p for p in self.parameters() if p.ndim > 1]
        rest = [p for p in self.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0}],
            lr=self.settings.learning_rate,
        )
        total = int(self.trainer.estimated_stepping_batches)
        schedule = get_cosine_schedule_with_warmup(optimizer, int(WARMUP * total), total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def clip_state(self) -> dict[str, Tensor]:
        """Give the weights under OpenAI's names."""
        state = {f"visual.{name}": tensor for name, tensor in self.visual.state_dict().items()}
        state |= self.text.state_dict() | {"logit_scale": self.logit_scale.detach()}
        return {name: tensor.cpu() for name, tensor in state.items()}


def vary_images(pixels: Tensor) -> Tensor:
    """Cut a random part out of each image, mirror half of them: (B, 3, S, S) uint8 to float."""
    count, device = len(pixels), pixels.device
    scale = torch.empty(count, device=device).uniform_(SMALLEST_CUT, 1)
    flip = torch.randint(2, (count,), device=device) * 2 - 1
    zoom = torch.stack([scale * flip, scale], 1).diag_embed()  # (B, 2, 2)
    shift = (2 * torch.rand(count, 2, 1, device=device) - 1) * (1 - scale)[:, None, None]
    grid = F.affine_grid(torch.cat([zoom, shift], 2), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)


def vary_texts(tokens: Tensor) -> Tensor:
    """Leave out a random share of each text's tokens: (B, 77) to (B, 77), closed up."""
    place = torch.arange(tokens.shape[1], device=tokens.device)
    word = (place > 0) & (place < tokens.argmax(dim=1, keepdim=True))
    dropped = word & (torch.rand(tokens.shape, device=tokens.device) < DROPPED_TOKENS)
    return tokens.masked_fill(dropped, 0).gather(1, dropped.int().argsort(dim=1, stable=True))


def samples_of(dataset: ArrowDataset, label: str) -> list[int]:
    """Choose the samples with a label, or all where it is "", that really are pairs."""
    whole = dataset.observed[dataset.rows] == COMPLETE
    chosen = np.flatnonzero(whole).tolist()
    if label:
        chosen = [i for i in chosen if str(dataset.labels[dataset.rows[i]].tolist()) == label]
    if not chosen:
        labelled = f" with the label {label}" * bool(label)
        raise UserError(f"pretrain.sources: {dataset.place} has no whole pair{labelled}")
    return chosen


def read_pairs(parts: list[tuple[ArrowDataset, list[int]]], tokenizer: Tokenizer, size: int) -> TensorDataset:
    """Decode all pairs once into memory: pixels (N, 3, size, size) uint8 and ids (N, 77)."""
    pairs = [(dataset, index) for dataset, chosen in parts for index in chosen]
    transform = ClipTransform(size)
    pixels = torch.empty(len(pairs), 3, size, size, dtype=torch.uint8)
    for slot, (dataset, index) in enumerate(tqdm(pairs, desc="decoding", unit="image")):
        pixels[slot] = dataset.image(int(dataset.rows[index]), transform)
    return TensorDataset(pixels, tokenizer(dataset.text(index) for dataset, index in pairs))


def train_clip(
    settings: PretrainSettings,
    open_split: Callable[[str, str], ArrowDataset],
    make_trainer: Callable[..., pl.Trainer],
) -> Path:
    """Train a small CLIP on training pairs and write it to ``settings.target``.

    Args:
        settings: see ``PretrainSettings``.
        open_split: (task, split) -> dataset with nothing missing.
        make_trainer: (max_epochs=) -> Trainer.

    Returns:
        The folder that ``vit=`` takes.
    """
    folder = Path(settings.target)
    if (folder / "model.safetensors").exists():
        raise UserError(f"pretrain.target={folder} holds a CLIP already; give another folder")
    folder.mkdir(parents=True, exist_ok=True)  # now, so that no training is lost
    sources = [source.partition(":")[::2] for source in settings.sources]

    def opened(split: str) -> list[tuple[ArrowDataset, list[int]]]:
        datasets = [(open_split(task, split), label) for task, label in sources]
        return [(dataset, samples_of(dataset, label)) for dataset, label in datasets]

    train = opened("train")
    texts = (dataset.text(i) for dataset, chosen in train for i in chosen)
    tokenizer = train_tokenizer(texts, settings.vocabulary, CONTEXT)
    module = ContrastiveModule(settings, len(tokenizer.vocab))
    pairs = read_pairs(train, tokenizer, settings.image_size)
    size = min(settings.batch_size, len(pairs))
    loader = DataLoader(pairs, batch_size=size, shuffle=True, drop_last=True)
    make_trainer(max_epochs=settings.epochs).fit(module, loader)

    for part, (source, _) in zip(opened("val"), sources, strict=True):
        held_out = read_pairs([part], tokenizer, settings.image_size).tensors
        count = min(RANKED, len(held_out[0]))
        found = matched(module, *(tensor[:count] for tensor in held_out))
        print(f"held-out pairs of {source}: {found:.1%} of {count} images find their text "
              f"(chance {1 / count:.1%})")  # fmt: skip
    save_clip(folder, module.clip_state(), ACTIVATION, tokenizer)
    return folder


@torch.inference_mode()
def matched(module: ContrastiveModule, pixels: Tensor, tokens: Tensor) -> float:
    """Measure the share of images whose own text is the most similar of all."""
    similar = module.eval()(pixels.to(module.device), tokens.to(module.device))
    target = torch.arange(len(similar), device=similar.device)
    return (similar.argmax(dim=1) == target).float().mean().item()
