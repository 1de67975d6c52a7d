"""Evaluate and train with few rows in one process and in three, all cells in one process group each.

    python -m tests.engine.rows_grid FOLDER

FOLDER has the tiny weights in `clip` and the arrow files with K rows per split in `dataK`; each process writes the test
scores of the initial weights and the validation scores after one epoch to `PROCESSES-RANK.json`.
"""

import copy
import itertools
import json
import os
import socket
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only

from clip.cli.build import build, build_data, task_from_data
from clip.cli.schema import make_config
from clip.engine.callbacks import GracefulStop
from clip.engine.checkpoints import CHECKPOINT_NAME, LAST, BestCheckpoint, Checkpoint
from clip.engine.trainer import accumulation, choose_device, make_trainer
from clip.modules.clip_missing_aware_prompt_module import MissingAwarePromptModule
from tests import tiny

PROCESSES = (1, 3)
ROWS = (1, 3, 5)  # fewer than the processes, as many, and not divisible by them
CELLS = [("mmimdb", 1), ("hatememes", 4)]  # task and micro-batch, each with all numbers of rows
BATCH_SIZE = 24  # a multiple of every pass


def run_cells(rank: int, processes: int, root: Path, port: int) -> None:
    """Run all cells in one process of several."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    environment |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()} | {"TORCHELASTIC_RUN_ID": "grid"})
    rank_zero_only.rank = rank
    device, scores = choose_device(0, 1, "32"), {}
    for (task_name, micro_batch), rows in itertools.product(CELLS, ROWS):
        settings = {"task": task_name, "vit": str(root / "clip"), "data_root": str(root / f"data{rows}")}
        settings |= {"prompt_length": tiny.LENGTH, "prompt_depth": tiny.DEPTH, "missing_ratio": 0.0}
        config = make_config(settings | {"per_gpu_batchsize": micro_batch, "num_workers": 0})
        task, metadata = task_from_data(config)
        pl.seed_everything(config.seed, verbose=False)
        built = build(config, task, metadata)
        data = build_data(config, task, built.backbone.sizes.image_size, built.backbone.tokenizer)
        module = MissingAwarePromptModule(built.model, task, config, data.transform.normalize, built.model_config)
        folder = root / f"runs{processes}" / f"{task_name}, {rows} rows, micro-batch {micro_batch}"
        best = BestCheckpoint(folder, task.headline, task.headline, {}, None)
        last = Checkpoint(folder, None, filename=f"{CHECKPOINT_NAME}-{LAST}", save_on_train_epoch_end=True)
        trainer = make_trainer(
            [],
            device,
            [best, last, GracefulStop(folder, micro_batch)],
            max_epochs=1,
            accumulate_grad_batches=accumulation(BATCH_SIZE, micro_batch, processes),
        )
        tested = copy.deepcopy(module)
        (found,) = trainer.test(tested, datamodule=data, verbose=False)
        found["test/rows"] = len(tested.tested[0])
        trainer.fit(module, datamodule=data)
        found |= {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        scores[folder.name] = found
    (root / f"{processes}-{rank}.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    for processes in PROCESSES:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # Nothing was computed before the fork: there are no threads that a child would miss.
        arguments = processes, Path(sys.argv[1]), port
        torch.multiprocessing.start_processes(run_cells, arguments, nprocs=processes, start_method="fork")
