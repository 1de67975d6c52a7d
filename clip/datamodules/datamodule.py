"""Arrow files and missing tables to batches, for any data set of the table ``DATASETS``."""

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from clip.datamodules.samplers import EpochSampler, ShareSampler
from clip.datasets import DATASETS, ArrowDataset
from clip.datasets.fingerprint import fingerprint
from clip.datasets.states import real_of_files
from clip.missing.files import load_or_draw
from clip.missing.importers import import_table
from clip.missing.masks import (
    SPLITS,
    MissingSettings,
    describe,
    draw,
    draw_released_masks,
    merge_observed,
    table_hash,
)
from clip.transforms import Transform
from clip.utils.errors import UserError

MOST_WORKERS = 8


@dataclass(frozen=True)
class MissingPlan:
    """Which modalities are missing where.

    Attributes:
        types: split -> "text", "image" or "both".
        ratios: split -> share of incomplete rows.
        both_ratio: share of missing images among the incomplete rows of "both".
        seed: of the tables.
        folder: where tables are kept; None for a folder beside the arrow files.
        files: split -> a table that somebody else made, "" for none.
        simulate: draw complete training samples anew in each epoch.
        draw: "nested" tables, kept on disk, or those of the released code's random "stream".
    """

    types: Mapping[str, str]
    ratios: Mapping[str, float]
    both_ratio: float = 0.5
    seed: int = 0
    folder: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    simulate: bool = False
    draw: str = "nested"

    @classmethod
    def from_config(cls, config: dict) -> "MissingPlan":
        """Read the settings that ``config_rules.validate`` has checked."""
        return cls(
            types=config.missing_type,
            ratios=config.missing_ratio,
            both_ratio=config.both_ratio,
            seed=config.missing_seed,
            folder=None,
            files=config.missing_table,
            simulate=config.simulate_missing,
            draw=config.missing_draw,
        )

    def settings(self, dataset: str, split: str, observed: np.ndarray) -> MissingSettings:
        """Give everything that decides the table of one split with these real states, (rows,)."""
        return MissingSettings(dataset, split, len(observed), self.types[split], self.ratios[split],
                               self.both_ratio, self.seed, observed.tobytes())  # fmt: skip


def leave_signals(worker: int) -> None:
    """Let a signal to all processes not end a loader worker: the training decides when to stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class MissingModalityDataModule(pl.LightningDataModule):
    """Loaders of one data set; a batch is the dict of ``ArrowDataset``, stacked, and more.

    Args:
        dataset: a key of ``DATASETS``.
        data_root: folder of the arrow files.
        num_classes: of the task, to check the labels.
        transform: Pillow image -> (3, H, W) uint8; its ``prepare`` does the rest on the device.
        tokenize: texts -> (N, L) ids.
        collate: samples -> batch, as the model takes it.
        plan: what is missing.
        plots: which texts of a row are samples.
        batch_size: samples of one step on one device.
        num_workers: loader processes; None for one a core, eight at most.
        seed: of the order of the training samples.
    """

    def __init__(
        self,
        *,
        dataset: str,
        data_root: str | Path,
        num_classes: int,
        transform: Transform,
        tokenize: Callable,
        collate: Callable[[list[dict]], dict],
        plan: MissingPlan,
        plots: str = "first",
        batch_size: int = 4,
        num_workers: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.name, self.declaration = dataset, DATASETS[dataset]
        self.data_root, self.plan, self.batch_size = Path(data_root), plan, batch_size
        self.transform = transform
        self.seed, self.collate = seed, collate
        self.num_workers = min(MOST_WORKERS, os.cpu_count() or 1) if num_workers is None else num_workers
        self._arguments = {"num_classes": num_classes, "transform": transform, "plots": plots,
                           "tokenize": tokenize}  # fmt: skip
        self.datasets: dict[str, ArrowDataset] = {}
        self.table_hashes: dict[str, str] = {}
        self.fingerprints: dict[str, str] = {}
        self.begin_at(0, 0)

    @classmethod
    def from_config(
        cls,
        config: dict,
        num_classes: int,
        transform: Transform,
        tokenize: Callable,
        collate: Callable[[list[dict]], dict],
    ) -> "MissingModalityDataModule":
        """Join checked settings and what belongs to the model: transform, tokenizer, batches."""
        return cls(
            dataset=config.task,
            data_root=config.data_root,
            num_classes=num_classes,
            transform=transform,
            tokenize=tokenize,
            collate=collate,
            plan=MissingPlan.from_config(config),
            plots=config.plots,
            batch_size=config.per_gpu_batchsize,
            num_workers=config.num_workers,
            seed=config.seed,
        )

    def setup(self, stage: str) -> None:
        """Open the splits of a stage ("fit", "test"), give them their tables, print the counts."""
        for split in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}[stage]:
            if split not in self.datasets:
                self._open(split)

    def _open(self, split: str) -> None:
        dataset = self.dataset(split)
        if self.plan.simulate and split == "train":
            dataset.simulate = self.plan.seed
        settings, table = self.table(split, dataset)
        dataset.set_missing(table)
        self.datasets[split] = dataset
        self.table_hashes[split] = table_hash(table)
        self.fingerprints[split] = fingerprint(*dataset.paths)
        print(describe(table[dataset.rows], settings, dataset.observed[dataset.rows]))

    def table(self, split: str, dataset: ArrowDataset) -> tuple[MissingSettings, np.ndarray]:
        """Give what decides a split's table, and the table: made elsewhere, kept, or drawn."""
        settings = self.plan.settings(self.name, split, dataset.observed)
        if self.plan.files.get(split):
            path = self.plan.files[split]
            made = import_table(path, dataset.num_rows, split, dataset.row_ids())
            return settings, merge_observed(made, dataset.observed)
        if self.plan.draw == "stream":
            return settings, self._stream(settings)
        return settings, load_or_draw(self.plan.folder or self.data_root / "missing_tables", settings)

    def _stream(self, settings: MissingSettings) -> np.ndarray:
        """Draw one split's table in the stream that passes through the splits before it."""
        before = SPLITS[: SPLITS.index(settings.split)]
        files = {split: self.declaration.find(self.data_root, split) for split in before}
        texts = self.declaration.text_column
        observed = {split: real_of_files(*paths, text_column=texts) for split, paths in files.items()}
        earlier = [replace(self.plan.settings(self.name, split, states), seed=settings.seed)
                   for split, states in observed.items()]  # fmt: skip
        return draw_released_masks([*earlier, settings])[settings.split]

    def dataset(self, split: str) -> ArrowDataset:
        """Open a split with all its modalities there.

        Raises:
            UserError: the file is absent, damaged or empty.
        """
        paths = self.declaration.find(self.data_root, split)
        dataset = ArrowDataset(*paths, text_column=self.declaration.text_column, **self._arguments)
        if not len(dataset):
            raise UserError(f"{dataset.place} has no samples; make it again with make_arrow.py")
        return dataset

    def draw(self, split: str, observed: np.ndarray, missing_type: str, ratio: float, seed: int) -> np.ndarray:
        """Draw a table of another type, ratio and seed for a split; it is not kept."""
        settings = MissingSettings(self.name, split, len(observed), missing_type, ratio,
                                   self.plan.both_ratio, seed, observed.tobytes())  # fmt: skip
        return self._stream(settings) if self.plan.draw == "stream" else draw(settings)

    def loader(self, dataset: ArrowDataset, sampler: Sampler | None = None) -> DataLoader:
        """Batch a dataset in a sampler's order, or in its own."""
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=self.collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_signals,
            # Their seeds, from a generator of their own: the global one is the model's alone.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def train_dataloader(self) -> DataLoader:
        """Shuffled training batches of this process."""
        train, trainer = self.datasets["train"], self.trainer
        where = trainer.world_size, trainer.global_rank, self.epoch, self.batches * self.batch_size
        return self.loader(train, EpochSampler(train, self.seed, *where))

    def begin_at(self, epoch: int, batches: int) -> None:
        """Go on within a training, before its loader is made.

        Args:
            epoch: the one to go on in.
            batches: of it that each process has done.
        """
        self.epoch, self.batches = epoch, batches

    def about(self, split: str, samples: list[int]) -> dict[str, list]:
        """Tell which rows samples come from, and what their image_id is if the file has it."""
        dataset = self.datasets[split]
        rows = dataset.rows[samples].tolist()
        ids = dataset.row_ids()
        return {"rows": rows} | ({"image_ids": [ids[row] for row in rows]} if ids else {})

    def val_dataloader(self) -> DataLoader:
        """Validation batches of this process."""
        return self._share("val")

    def test_dataloader(self) -> DataLoader:
        """Test batches of this process."""
        return self._share("test")

    def _share(self, split: str) -> DataLoader:
        dataset, trainer = self.datasets[split], self.trainer
        sampler = ShareSampler(len(dataset), trainer.world_size, trainer.global_rank)
        return self.loader(dataset, sampler)
