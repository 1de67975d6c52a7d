"""One LightningDataModule for all data sets."""

from clip.datamodules.datamodule import MissingModalityDataModule, MissingPlan

__all__ = ["MissingModalityDataModule", "MissingPlan"]
