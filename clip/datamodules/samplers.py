"""Which samples a process sees, and in which order."""

from collections.abc import Iterator
from itertools import islice

from torch.utils.data import DistributedSampler, Sampler

from clip.datasets import ArrowDataset


class EpochSampler(DistributedSampler):
    """Shuffles anew in each epoch; Lightning tells it the epoch.

    The global random state has no part in it, so a run that goes on after a fault sees the samples,
    and the states that ``simulate`` draws for them, in the order of an unbroken run.

    Args:
        dataset: the training split.
        seed: of the run.
        world_size: processes that share the samples.
        rank: number of this process.
        start: epoch in which the run goes on.
        seen: samples of that epoch that this process had before.
    """

    def __init__(
        self,
        dataset: ArrowDataset,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        start: int = 0,
        seen: int = 0,
    ):
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed)
        self.start, self.seen = start, seen
        # Lightning asks for the first batches before it tells the epoch, and workers begin at once.
        self.set_epoch(start)

    def __iter__(self) -> Iterator[int]:
        """Leave out what was seen; the length stays, since Lightning's progress counts it."""
        return islice(super().__iter__(), self.seen if self.epoch == self.start else 0, None)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch."""
        super().set_epoch(epoch)
        self.dataset.set_epoch(epoch)


class ShareSampler(Sampler):
    """Every sample once, in file order, dealt out to the processes; none is padded or repeated.

    Args:
        size: number of samples.
        world_size: processes that share them.
        rank: number of this process.
    """

    def __init__(self, size: int, world_size: int = 1, rank: int = 0):
        self.indices = range(rank, size, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
