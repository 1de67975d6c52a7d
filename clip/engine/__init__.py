"""Training runs: the trainer, its callbacks and its checkpoints."""
