"""``ArrowDataset``, shared by all data sets, ``EncodedDataset`` in its place, and the registry of data sets."""

from clip.datasets.arrow_dataset import ArrowDataset, EncodedDataset
from clip.datasets.registry import DATASETS, DatasetSpec

__all__ = ["DATASETS", "ArrowDataset", "DatasetSpec", "EncodedDataset"]
