"""One LightningDataModule for all data sets."""

from clip.datamodules.datamodule import LoadingConfig, MissingModalityDataModule

__all__ = ["LoadingConfig", "MissingModalityDataModule"]
