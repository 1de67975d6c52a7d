"""What users type by mistake in training -> words that the one-line answer must hold."""

# {wrong}: a folder of wrong files; {run}: the folder of a run; {best}: its best checkpoint.
MISTAKES = [
    (["task_finetune_mmimdb", "data_root={wrong}/empty"], ["make_arrow.py --dataset mmimdb"]),
    (["task_finetune_mmimdb", "data_root={wrong}/cut"], ["mmimdb_train.arrow", "no whole arrow"]),
    (["task=vqa"], ["task='vqa'", "food101"]),
    (["task_finetune_mmimdb", "prompt_type=coop"], ["prompt_type='coop'", "dcp, none"]),
    (["task_finetune_mmimdb", "missing_ratio.train=7"], ["missing_ratio.train=7", "0 to 1"]),
    (["task_finetune_mmimdb", "prompt_length=10"], ["prompt_length=10", "three"]),
    (["task_finetune_mmimdb", "prompt_depth=9"], ["prompt_depth=9", "1 to 3"]),
    (["task_finetune_mmimdb", "per_gpu_batchsize=3"], ["batch_size=8", "3"]),
    (["task_finetune_mmimdb", "vit={wrong}/nowhere"], ["nowhere", "ViT-B/16"]),
    (["task_finetune_mmimdb", "load_path={wrong}/gone.pt"], ["gone.pt", "epoch-"]),
    (["task_finetune_mmimdb", "load_path={wrong}/notes.pt"], ["notes.pt"]),
    (["task_finetune_mmimdb", "load_path={wrong}/other.pt"], ["other.pt", "no checkpoint"]),
    (["task_finetune_food101", "load_path={run}"], ["task=mmimdb", "task=food101"]),
    (["task_finetune_mmimdb", "load_path={run}", "vit={wrong}/clip"], ["backbone_sha256"]),
    (["task_finetune_mmimdb", "load_path={run}", "prompt_type=none"], ["prompt_type=dcp", "none"]),
    (["paper", "task_finetune_mmimdb", "load_path={run}"], ["thaw=['ln_post", "thaw=[];"]),
    (["task_finetune_mmidb"], ["'task_finetune_mmidb'", "did you mean 'task_finetune_mmimdb'"]),
    (["task_finetune_mmimdb", "prompt_lenght=6"], ["'prompt_lenght'", "'prompt_length'"]),
    (["task_finetune_mmimdb", "missing_ratio.dev=0.3"], ["missing_ratio.dev", "did you mean"]),
    (["task_finetune_mmimdb", "seed=-1"], ["seed=-1", "from 0"]),
    (["task_finetune_mmimdb", "log_dir={wrong}/notes.pt"], ["notes.pt", "check the paths"]),
    (["task_finetune_mmimdb", "resume_from={run}", "learning_rate=0.5"], ["learning_rate=0.02"]),
    (
        ["task_finetune_mmimdb", "resume_from={run}", "learning_rate=0.02", "missing_seed=7"],
        ["missing_tables"],
    ),
    (["task_finetune_mmimdb", "resume_from={best}", "learning_rate=0.02"], ["-last.pt"]),
    (["task_finetune_mmimdb", "learning_rate=1e20", "max_epoch=3"], ["diverged", "1e+20"]),
    (["task_finetune_mmimdb", "resume_from={run}", "prompt_length=9"], ["prompt_length=6", "9"]),
]
