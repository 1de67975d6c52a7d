"""All settings with their defaults: the comment on each key is its help (`print_config`)."""

import inspect
import logging
import re

from sacred import SETTINGS, Experiment

SETTINGS.CAPTURE_MODE = "no"  # capturing the output would break the progress bars
SETTINGS.CONFIG.READ_ONLY_CONFIG = False  # the commands get plain dicts and lists

ex = Experiment("DCP", save_git_info=False)
ex.logger = logging.getLogger("DCP")
ex.logger.setLevel(logging.CRITICAL)  # Sacred reports start and end of a run; ours says more


PUBLISHED = {"clip": "ViT-B/16", "vilt": "dandelin/vilt-b32-mlm"}  # vit, by backbone


@ex.config
def base_config():
    """Defaults of all tasks."""
    task = "mmimdb"  # mmimdb, food101, hatememes or manifest; set by the task_finetune_* configs
    exp_name = "dcp"  # name of the run's folder under log_dir
    log_dir = "result"  # where run folders go; nothing in it is ever deleted
    seed = 0  # of the initial weights and the order of the samples

    data_root = "datasets"  # folder of the arrow files that make_arrow.py wrote
    plots = "first"  # texts that are samples: first or longest of a row, or all of them
    num_workers = None  # loader processes; None: one a core, eight at most

    missing_type = {"train": "both", "val": "both", "test": "both"}  # text, image or both
    missing_ratio = {"train": 0.7, "val": 0.7, "test": 0.7}  # share of incomplete samples
    both_ratio = 0.5  # share of missing images among the incomplete samples of "both"
    missing_draw = "nested"  # or stream: one random stream through all splits (released code)
    missing_seed = 0  # of the missing tables; apart from seed, so that runs share their masks
    missing_table_root = None  # where tables are kept; None: missing_tables in data_root
    missing_table = {"train": "", "val": "", "test": ""}  # tables made elsewhere: pt jsonl csv npz
    simulate_missing = False  # draw complete training samples anew at each access (Figure 5)
    test_type = None  # shorthand for missing_type.test
    test_ratio = None  # shorthand for missing_ratio.test

    backbone = "clip"  # the frozen backbone: clip, two towers, or vilt, a single stream
    vit = PUBLISHED.get(backbone, "")  # its weights: a name, a Hugging Face id, a folder or a file
    activation = None  # quick_gelu or gelu, for a file that does not say it; None: as they say
    prompt_type = "dcp"  # dcp, coop, mmp, mmp_attention, maple, dept, none (baseline) or finetune
    prompt_length = 36  # prompt tokens of each tower or modality; for dcp a multiple of three
    prompt_depth = 6  # layers that get fresh prompts; of dcp the correlated ones
    unfreeze = None  # of CLIP: ln_post ln_final image_proj; of each: backbone; None: as published
    vilt = {  # settings of backbone=vilt
        "max_text_len": None,  # tokens of a text; None: mmimdb 1024, food101 512, hatememes 128
        "drop_missing": False,  # leave a missing modality out; published: a dummy stands in
    }

    dcp = {  # settings of prompt_type=dcp
        "prompts": "full",  # A: correlated, B: and dynamic, full: and modal-common; or none
        "formulas": "released",  # as the released code computes, or paper: as it is printed
        "dynamic_queries": "trained",  # or fixed: drawn from the seed, as in the released code
        "generator": "mlp",  # of correlated prompts; or fc, or none: independent ones a layer
        "reduction": 16,  # of the generator's hidden width
        "source": "both",  # towers whose prompts a generator reads (eq. 5); or its own (eq. 3)
        "dynamic_generator": "attention",  # or max, min, avg: pooled tokens and a projection
        "dynamic_depth": 1,  # layers with fresh dynamic prompts
        "common_projection": "mlp",  # of modal-common prompts to a tower; or fc
        "common_reduction": 16,  # of the projection's hidden width
        "common_depth": 1,  # layers with fresh modal-common prompts
    }
    coop = {  # settings of prompt_type=coop
        "per_case": False,  # prompts for each missing case, or one set for all
    }
    maple = {  # settings of prompt_type=maple
        "per_case": False,  # prompts for each missing case, or one set for all
    }
    dept = {  # settings of prompt_type=dept
        "base": "maple",  # the method whose prompts it takes
        "weight": 0.7,  # of the channel-adjusted head, in loss and scores
    }

    batch_size = 256  # samples of one optimiser step, over all devices
    per_gpu_batchsize = "auto"  # samples of one forward pass on one device; auto: what fits
    compile = False  # the towers' blocks with torch.compile: minutes at the start, for long runs
    optim_type = "adamw"  # adamw with the released betas, or adam with its own
    learning_rate = 1e-2  # at the end of the warm-up
    weight_decay = 2e-2  # of everything but biases
    lr_mult = 1  # factor on the learning rate of the classifier
    schedule_length = "exact"  # or floor: without the last partial steps (released code)
    warmup_steps = 0.1  # a share of all steps, or a number of steps if above 1
    decay_power = 1  # of the polynomial decay after the warm-up; 1 is linear
    end_lr = 0  # learning rate at the last step
    max_epoch = 20  # passes over the training samples
    max_steps = None  # optimiser steps; None: as many as max_epoch gives
    val_check_interval = 0.2  # share of an epoch between validations
    nonfinite_loss = "stop"  # at a loss that is no number; or skip: go on without its samples

    num_gpus = 1  # per node; a machine without any runs on its CPU
    num_nodes = 1  # machines
    precision = "bf16"  # bf16, 16 or 32; a CPU always computes in 32
    fast_dev_run = False  # one batch of each kind, nothing saved: does it run?

    test_only = False  # evaluate load_path on the test split instead of training
    load_path = ""  # checkpoint (epoch-*.pt) or run folder to start from or evaluate
    resume_from = ""  # last checkpoint or run folder of an interrupted run to go on with

    sweep_types = ["both", "text", "image"]  # test cases of the sweep command
    sweep_ratios = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]  # and their missing rates
    sweep_seeds = None  # and the seeds of their tables; None: missing_seed alone
    predictions = ""  # predictions.arrow of an earlier sweep, to score another grid without a model

    image = ""  # of predict: an image file, to be classified alone or with text
    text = ""  # of predict: a text, to be classified alone or with image
    input = ""  # of predict: many at once, a csv, jsonl or parquet file or a folder of images
    output = "predictions.csv"  # of predict with input=: the csv or parquet file to write
    host = "127.0.0.1"  # of serve: its address; others than this machine's own open it to a network
    port = 7860  # of serve; 0 for a free one

    experiment = None  # of reproduce: a name in experiments/ or a yaml file, or a list of them
    seeds = [0]  # of reproduce: every run of the experiment is done with each of them
    only = []  # of reproduce: a part of the runs, such as ["task=mmimdb", "method=DCP"]; []: all
    launcher = "local"  # where reproduce does its runs: local or slurm
    jobs = 1  # runs that reproduce does at once, which share this machine's GPU if it is local
    slurm = []  # what sbatch is told, such as ["partition=gpu", "time=120"]; time in minutes

    pretrain = {  # the pretrain command: a small CLIP from the training pairs
        "target": "datasets/clip",  # folder to write
        "image_size": 64,  # pixels
        "patch": 8,  # pixels
        "width": 128,  # channels of both towers, a multiple of 64
        "layers": 6,  # of both towers
        "vocabulary": 4096,  # byte pairs
        "epochs": 30,  # passes over the training pairs
        "batch_size": 128,  # pairs that are contrasted with one another
        "learning_rate": 1e-3,  # at the end of the warm-up
        "sources": [],  # whose pairs: tasks, or task:label, as hatememes:0; none: the run's task
    }


def nested_comments(source: str) -> dict[str, str]:
    """Find the comments of nested settings, which Sacred does not look for: "dcp.prompts" -> it."""
    found, outer = {}, ""
    for line in source.splitlines():
        if head := re.match(r"    (\w+) = \{  # (.+)", line):
            outer, found[head[1]] = head[1], head[2]
        elif inner := re.match(r'        "(\w+)": .+  # (.+)', line):
            found[f"{outer}.{inner[1]}"] = inner[2]
    return found


base_config._var_docs |= nested_comments(inspect.getsource(base_config._func))


@ex.named_config
def released():
    """The strict protocol of the released code; docs/fidelity.md lists what it switches."""
    plots = "all"
    missing_draw = "stream"
    dcp = {"dynamic_queries": "fixed"}
    schedule_length = "floor"
    per_gpu_batchsize = 4
    precision = "16"


@ex.named_config
def paper():
    """The paper as printed: formulas 1-8, only prompts and classifier train, Adam, batch 4."""
    dcp = {"formulas": "paper"}
    unfreeze = []
    optim_type = "adam"
    batch_size = 4


@ex.named_config
def mmp():
    """Missing-aware prompts as published on ViLT (Lee et al., 2023)."""
    backbone = "vilt"
    prompt_type = "mmp"
    prompt_length = 16
    plots = "all"
    missing_draw = "stream"
    schedule_length = "floor"
    precision = "16"


@ex.named_config
def task_finetune_mmimdb():
    """Movie genres, 23 classes, several each; F1-Macro."""
    task = "mmimdb"
    exp_name = "finetune_mmimdb"


@ex.named_config
def task_finetune_food101():
    """Dishes, 101 classes; accuracy."""
    task = "food101"
    exp_name = "finetune_food101"


@ex.named_config
def task_finetune_hatememes():
    """Hateful or not; AUROC."""
    task = "hatememes"
    exp_name = "finetune_hatememes"
    val_check_interval = 0.11


@ex.named_config
def task_finetune_manifest():
    """One's own data, of `make_arrow.py --dataset manifest`; the files say what is predicted."""
    task = "manifest"
    exp_name = "finetune_manifest"
