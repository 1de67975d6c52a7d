"""Distributed sampler that can resume within an epoch."""

from collections.abc import Iterator
from itertools import islice

from torch.utils.data import DistributedSampler

from clip.datasets import ArrowDataset


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
