"""Order of the training samples of a process."""

from collections.abc import Iterator
from itertools import islice

from torch.utils.data import DistributedSampler

from clip.datasets import ArrowDataset


class EpochSampler(DistributedSampler):
    """Shuffle the samples anew in each epoch, which Lightning sets.

    The global random state is not used, so a resumed run sees the samples, and the cases that ``simulate`` draws for
    them, in the order of an unbroken run. It continues in the epoch ``start``, of which this process has already seen
    ``skip`` samples.
    """

    def __init__(self, dataset: ArrowDataset, seed: int, world_size=1, rank=0, start: int = 0, skip: int = 0):
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed)
        self.start, self.skip = start, skip
        # Lightning fetches the first batches before it sets the epoch, and workers start at once.
        self.set_epoch(start)

    def __iter__(self) -> Iterator[int]:
        """Iterate without the seen samples; the length stays, since Lightning's progress counts them."""
        return islice(super().__iter__(), self.skip if self.epoch == self.start else 0, None)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the order and of the simulated cases."""
        super().set_epoch(epoch)
        self.dataset.set_epoch(epoch)
