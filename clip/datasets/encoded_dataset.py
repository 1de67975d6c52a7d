"""Dataset of one split whose samples are encoded already."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from clip.datasets.arrow_dataset import ArrowDataset


class EncodedDataset(Dataset):
    """Features (samples, F) in place of the images and texts of an ``ArrowDataset`` without simulated missing cases."""

    def __init__(self, dataset: ArrowDataset, features: Tensor):
        self.columns = {
            "features": features,
            "label": dataset.sample_labels(),
            "missing_type": torch.from_numpy(dataset.mask[dataset.rows]).long(),
            "sample_id": torch.arange(len(dataset)),
        }

    def __len__(self) -> int:
        return len(self.columns["features"])

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """Return a batch; a DataLoader calls this in place of ``__getitem__`` for each index."""
        return {name: column[indices] for name, column in self.columns.items()}
