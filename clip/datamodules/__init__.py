"""One LightningDataModule for all data sets."""

from clip.datamodules.datamodule import MissingModalityDataModule

__all__ = ["MissingModalityDataModule"]
