"""The order of the training samples, a function of seed and epoch alone."""

from torch.utils.data import DistributedSampler

from clip.datasets import ArrowDataset


class EpochSampler(DistributedSampler):
    """Shuffles anew in each epoch; Lightning tells it the epoch, also after a resume.

    The global random state has no part in it, so a run that goes on after a fault sees the samples,
    and the states that ``simulate`` draws for them, in the order of an unbroken run.

    Args:
        dataset: the training split.
        seed: of the run.
        world_size: processes that share the samples.
        rank: number of this process.
    """

    def __init__(self, dataset: ArrowDataset, seed: int, world_size: int = 1, rank: int = 0):
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch."""
        super().set_epoch(epoch)
        self.dataset.set_epoch(epoch)
