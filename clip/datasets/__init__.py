"""One arrow dataset for all data sets, and one row of the registry for each."""

from clip.datasets.arrow_dataset import PLOT_POLICIES, ArrowDataset
from clip.datasets.registry import DATASETS, DatasetSpec

__all__ = ["DATASETS", "PLOT_POLICIES", "ArrowDataset", "DatasetSpec"]
