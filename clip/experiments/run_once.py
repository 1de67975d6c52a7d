"""Execute one run of an experiment: train, then predict the validation and test splits in every missing case.

    python -m clip.experiments.run_once RUN_FOLDER

A run's folder has `plan.json` (settings), `training/` (folders of ordinary training runs, later
ones continuing an interrupted one), `val.arrow`, `test.arrow`, `run.json` and, written last,
`result.json`, which marks the run as finished.
"""

import contextlib
import sys
from pathlib import Path

from filelock import FileLock
from pytorch_lightning.utilities import rank_zero_only

from clip.cli.build import build_all, choose_single_device, run_record
from clip.cli.commands import predict_split, train
from clip.cli.schema import make_config
from clip.engine.checkpoints import BEST, LAST, find_checkpoint
from clip.engine.run_folder import write_json
from clip.engine.trainer import check_single_process
from clip.experiments.plan import PATHS_AND_DEVICES
from clip.utils.errors import UserError, loader_error
from clip.utils.files import describe_os_error, parse_object

MEASURED = ("seconds_train", "seconds_per_step", "steps", "peak_memory_mb")


def run_once(folder: Path) -> None:
    """Train and predict with the best checkpoint unless the run is finished; continue it if it was interrupted."""
    check_single_process("a run of an experiment")  # it predicts in one process
    plan = parse_object((folder / "plan.json").read_bytes(), str(folder / "plan.json"))
    config = make_config(plan.pop("config"))
    # The other processes of a run on several GPUs are started by the first, which has the lock.
    with contextlib.nullcontext() if rank_zero_only.rank else FileLock(folder / "run.lock"):
        if (folder / "result.json").is_file():
            print(f"finished before: {folder}")
            return
        training = folder / "training"
        if ended := next(training.glob("*/version_*/metrics.json"), None):
            # The folder may have been moved since.
            trained = parse_object(ended.read_bytes(), str(ended)) | {"folder": str(ended.parent)}
        else:
            interrupted = any(training.glob(f"**/epoch-*-{LAST}*.pt"))
            resume_from = str(training) if interrupted else ""
            places = {"log_dir": str(training), "resume_from": resume_from}
            trained = train(make_config(config.model_dump() | places, PATHS_AND_DEVICES))
        if rank_zero_only.rank:
            return
        best = find_checkpoint(trained["folder"], BEST)
        alone = config.replace(num_gpus=min(1, config.num_gpus), num_nodes=1, load_path=str(best))
        device = choose_single_device(alone, "predicting")
        _, module, data = build_all(alone, device)
        for split in ("val", "test"):
            predictions = predict_split(module, data, split, device)
            predictions.save(folder / f"{split}.arrow")
        logits = predictions.select(data.mask("test", data.dataset("test")))
        test = {f"test/{name}": score for name, score in module.task.score(logits, predictions.labels).items()}
        record = run_record(config, device, module, data) | plan | {"seed": config.seed}
        record |= {"missing_tables": plan["hashed"]["missing_tables"], "arrow_files": plan["hashed"]["data"]}
        write_json(folder / "run.json", record)
        headline = module.task.headline
        result = {"headline": headline, "best_val": trained[f"val/{headline}"], "checkpoint": str(best)}
        result |= test | {name: trained[name] for name in MEASURED}
        write_json(folder / "result.json", result)  # last: it is finished
        print(f"finished: {folder}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for characters that the encoding cannot represent
    try:
        run_once(Path(sys.argv[1]))
    except (UserError, OSError) as error:
        sys.exit(f"error: {describe_os_error(error) if isinstance(error, OSError) else error}")
    except RuntimeError as error:
        if killed := loader_error(error):
            sys.exit(f"error: {killed}")
        raise
