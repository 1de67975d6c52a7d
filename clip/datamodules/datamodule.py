"""LightningDataModule that loads arrow files and masks as batches, for every data set of ``DATASETS``."""

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, Sampler

from clip.config import BaseConfig
from clip.datasets import DATASETS, ArrowDataset, EncodedDataset
from clip.datasets.arrow_dataset import fingerprint, observed_cases
from clip.datasets.shards import open_table
from clip.datasets.subset import stratified_subset
from clip.missing import SPLITS
from clip.missing.importers import import_mask
from clip.missing.masks import MissingConfig, describe_masks, draw_mask, draw_released_masks, mask_hash, merge_observed
from clip.modules.objectives import Task
from clip.transforms import Transform
from clip.utils.errors import UserError

MAX_WORKERS = 8
# Signals that end a run gracefully (clip.engine.callbacks); schedulers send one of them before preemption.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STAGES = {"fit": ("train", "val"), "test": ("test",)}


def ignore_signals(worker: int) -> None:
    """Ignore ``STOP_SIGNALS`` in a DataLoader worker; the training process handles them."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class EpochSampler(DistributedSampler):
    """Shuffle the samples in each epoch and skip those that a resumed run has already seen.

    The global random state is not used, so a resumed run sees the same samples and simulated missing cases as an
    uninterrupted one. It continues in the epoch ``start``, of which this process has already seen ``skip`` samples.
    """

    def __init__(self, dataset: ArrowDataset, seed: int, world_size=1, rank=0, start: int = 0, skip: int = 0):
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed)
        self.start, self.skip = start, skip
        # Lightning fetches the first batches before it sets the epoch, and workers start at once.
        self.set_epoch(start)

    def __iter__(self) -> Iterator[int]:
        """Yield the indices that are not skipped; ``len`` includes the others, which Lightning's progress counts."""
        return islice(super().__iter__(), self.skip if self.epoch == self.start else 0, None)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that seeds the sample order and the simulated missing cases."""
        super().set_epoch(epoch)
        self.dataset.set_epoch(epoch)


class MissingModalityDataModule(pl.LightningDataModule):
    """Data loaders of one data set; a batch is the dict of ``ArrowDataset``, collated for the model.

    Args:
        config: settings of the data, the missing modalities and the loaders.
        task: classification task; the labels must match it.
        transform: Pillow image -> (3, H, W) uint8.
        tokenize: texts -> token ids (N, L).
        collate: samples -> batch.
    """

    def __init__(self, config: BaseConfig, task: Task, transform: Transform, tokenize: Callable, collate: Callable):
        super().__init__()
        self.config, self.task, self.transform, self.tokenize, self.collate = config, task, transform, tokenize, collate
        self.spec, self.data_root = DATASETS[config.task], Path(config.data_root)
        self.batch_size = config.per_gpu_batchsize  # samples of one forward pass on one device
        self.missing = MissingConfig(
            types=config.missing_type,
            ratios=config.missing_ratio,
            both_ratio=config.both_ratio,
            seed=config.missing_seed,
            draw=config.missing_draw,
            files=config.missing_table,
            simulate=config.simulate_missing,
        )
        self.limits = {"train": config.limit_train, "val": config.limit_val, "test": config.limit_test}
        self.num_workers = min(MAX_WORKERS, os.cpu_count() or 1) if config.num_workers is None else config.num_workers
        self.datasets: dict[str, ArrowDataset] = {}  # by split, as in the next four
        self.encoded: dict[str, EncodedDataset] = {}  # see use_features
        self.mask_hashes: dict[str, str] = {}  # SHA-256 of the mask
        self.fingerprints: dict[str, str] = {}  # content hash of the arrow files
        self.subsets: dict[str, dict[str, Any]] = {}  # number and SHA-256 of the rows of a limited split
        self.resume_at(0, 0)

    def dataset(self, split: str) -> ArrowDataset:
        """Open a split without a mask; raise UserError if it has no samples."""
        dataset = ArrowDataset(
            *self.spec.find(self.data_root, split),
            text_column=self.spec.text_column,
            num_classes=self.task.num_classes,
            multilabel=self.task.multilabel,
            transform=self.transform,
            tokenize=self.tokenize,
            plots=self.config.plots,
        )
        if not len(dataset):
            raise UserError(f"{dataset.place} has no samples; run make_arrow.py again")
        if self.limits[split] is not None:
            rows = stratified_subset(dataset.labels, self.limits[split], self.config.seed)
            dataset.keep_rows(rows)
            print(f"{split}: {len(rows)} of {dataset.num_rows} rows, limit_{split}={self.limits[split]}")
        return dataset

    def mask(self, split: str, dataset: ArrowDataset) -> np.ndarray:
        """Import or draw the mask of a split, (rows,) uint8."""
        if path := self.missing.files.get(split):
            mask = import_mask(path, dataset.num_rows, split, dataset.row_ids())
            return merge_observed(mask, dataset.observed)
        case = self.missing.types[split], self.missing.ratios[split], self.missing.seed
        return self.draw(split, dataset.observed, *case)

    def draw(self, split: str, observed: np.ndarray, missing_type: str, ratio: float, seed: int) -> np.ndarray:
        """Draw a mask of this type, ratio and seed for a split with these observed cases, (rows,) uint8."""
        types, ratios = {**self.missing.types, split: missing_type}, {**self.missing.ratios, split: ratio}
        missing = replace(self.missing, types=types, ratios=ratios, seed=seed)
        if missing.draw == "nested":
            return draw_mask(self.config.task, split, observed, missing)
        cases = {}
        for earlier in SPLITS[: SPLITS.index(split)]:  # the released code draws the splits in order from one generator
            table = open_table(*self.spec.find(self.data_root, earlier))
            cases[earlier] = observed_cases(table, self.spec.text_column)
        return draw_released_masks(cases | {split: observed}, missing)[split]

    def setup(self, stage: str) -> None:
        """Open the splits of a stage ("fit", "test"), set their masks and print a table of the cases."""
        counts = {}
        for split in STAGES[stage]:
            if split in self.datasets:
                continue
            dataset = self.dataset(split)
            mask = self.mask(split, dataset)
            dataset.set_mask(mask, self.missing.seed if self.missing.simulate and split == "train" else None)
            self.datasets[split] = dataset
            self.mask_hashes[split], self.fingerprints[split] = mask_hash(mask), fingerprint(*dataset.paths)
            rows = dataset.rows
            if self.limits[split] is not None:
                chosen = np.unique(rows).astype("<i8")
                self.subsets[split] = {"rows": len(chosen), "sha256": hashlib.sha256(chosen.tobytes()).hexdigest()}
            counts[split] = dataset.observed[rows], mask[rows]
        if counts:
            print(describe_masks(counts, self.missing))

    def loader(self, dataset: ArrowDataset, sampler: Sampler | None = None) -> DataLoader:
        """Return a loader of a dataset, in the order of a sampler or of the file."""
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=self.collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=ignore_signals,
            # A separate generator for the workers' seeds, so that loading does not advance the global one.
            generator=torch.Generator().manual_seed(self.config.seed),
        )

    def use_features(self, split: str, features: Tensor) -> None:
        """Load features, as ``EncodedDataset`` takes them, in place of images and texts in training and validation."""
        self.encoded[split] = EncodedDataset(self.datasets[split], features)

    def resume_at(self, epoch: int, batches: int) -> None:
        """Set the epoch to resume in and the number of its batches that each process has already seen."""
        self.start_epoch, self.seen_batches = epoch, batches

    def train_dataloader(self) -> DataLoader:
        """Return the shuffled training batches of this process."""
        dataset, size, rank = self.datasets["train"], self.trainer.world_size, self.trainer.global_rank
        seen = self.seen_batches * self.batch_size
        return self._loader("train", EpochSampler(dataset, self.config.seed, size, rank, self.start_epoch, seen))

    def val_dataloader(self) -> DataLoader:
        """Return the validation batches of this process: each sample once, in file order."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        """Return the test batches of this process: each sample once, in file order."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> DataLoader:
        dataset, size, rank = self.datasets[split], self.trainer.world_size, self.trainer.global_rank
        if len(dataset) < size:  # Lightning skips the loop of a process without a batch, and the others would wait
            size, rank = 1, 0  # each process takes all samples, which changes no mean
        return self._loader(split, UnrepeatedDistributedSampler(dataset, size, rank, shuffle=False))

    def _loader(self, split: str, sampler: Sampler) -> DataLoader:
        if split not in self.encoded:
            return self.loader(self.datasets[split], sampler)
        # Batches are complete as the dataset returns them.
        return DataLoader(self.encoded[split], self.batch_size, sampler=sampler, collate_fn=dict)
