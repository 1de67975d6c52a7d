"""Command lines with a mistake, and the error message of each.

Placeholders in the words: {wrong} is the folder of wrong_files.py, {arrow} a folder of valid arrow files, {run} the
folder of a training run on MM-IMDb, {best} its best checkpoint, {port} a port in use, and {out} a new folder.
Settings of run.py that a row does not set select the tiny data, the tiny model and the CPU.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """A command line with a mistake and its expected error.

    Attributes:
        command: command of run.py ("" trains), or make_arrow.py.
        words: words after the command (after ``with`` for run.py), quoted as in a shell.
        pattern: regular expression that the one line on stderr must match somewhere.
        code: exit code.
    """

    command: str
    words: str
    pattern: str
    code: int = 1


def rows(command: str, *pairs: tuple[str, str], code: int = 1) -> list[Row]:
    """Return one row per pair of words and pattern, all of the same command and exit code."""
    return [Row(command, *pair, code) for pair in pairs]


NAMES = rows(
    "",
    ("task_finetune_mmidb", "'task_finetune_mmidb'.*'task_finetune_mmimdb'"),
    ("prompt_lenght=6", "'prompt_lenght'.*'prompt_length'"),
    ("dcp.generater=fc", "'dcp.generater'.*'dcp.generator'"),
    ("formulas=paper", "'formulas'.*'dcp.formulas'"),
    ("missing_ratio.dev=0.3", "'missing_ratio.dev'"),
    ("unfreeze={{1:2}}", "unfreeze={1: 2}"),
    ("dcp={{1:2}}", "'dcp.1'"),
    ("exp_name=1e999", "exp_name=inf"),
    ("backbone=[1] vit=''", r"backbone=\[1\]"),
    ("prompt_type = dcp", "'prompt_type'.*prompt_type="),
    ("sweep.ratios=[0.3, 0.7]", r"0\.7\]|sweep\.ratios"),
    ("maple.depth=1", "'maple.depth'"),
    ("max_text_len=128", "'max_text_len'"),
)
VALUES = rows(
    "",
    ("task=vqa", "task='vqa'"),
    ("prompt_type=cocoop", "prompt_type='cocoop'"),
    ("missing_ratio=1.5", r"missing_ratio\.train=1\.5"),
    ("missing_ratio.train=7", r"missing_ratio\.train=7"),
    ("missing_ratio=0,7", r"missing_ratio\.train=\[0"),
    ("'missing_ratio=float(\"nan\")'", r"missing_ratio\.train='float"),
    ("test_ratio=-0.1", r"missing_ratio\.test=-0\.1"),
    ("both_ratio=2", "both_ratio=2"),
    ("missing_type.train=audio", r"missing_type\.train='audio'"),
    ("test_type=none", "missing_type\\.test='none'"),
    ("missing_seed=-1", "missing_seed=-1"),
    ("plots=second", "plots='second'"),
    ("prompt_length=0", "prompt_length=0"),
    ("prompt_length=10", "prompt_length=10"),
    ("prompt_depth=0", "prompt_depth=0"),
    ("prompt_depth=9", "prompt_depth=9"),
    ("dcp.common_depth=9", r"dcp\.common_depth=9"),
    ("dcp.formulas=mine", r"dcp\.formulas='mine'"),
    ("dcp.prompts=C", r"dcp\.prompts='C'"),
    ("'dcp.prompts=[\"A\"]'", r"dcp\.prompts=\['A'\]"),
    ("dcp.reduction=0", r"dcp\.reduction=0"),
    ("dcp=full dcp.generator=fc", "dcp='full'"),
    ("vit=[]", r"vit=\[\]"),
    ("log_dir=~no_such_user/runs", "log_dir='~no_such_user/runs'"),
    ("num_nodes=2", "num_nodes=2"),
    ("coop.per_case=1", r"coop\.per_case=1"),
    ("coop=yes", "coop='yes'"),
    ("dept.weight=2", r"dept\.weight=2"),
    ("dept.base=dept", r"dept\.base='dept'"),
    ("unfreeze=[\\'head\\']", "unfreeze="),
    ("activation=relu", "activation='relu'"),
    ("batch_size=0", "batch_size=0"),
    ("per_gpu_batchsize=0", "per_gpu_batchsize=0"),
    ("per_gpu_batchsize=3", "batch_size=8"),
    ("per_gpu_batchsize=64", "batch_size=8"),
    ("max_epoch=2.5", r"max_epoch=2\.5"),
    ("max_epoch=many", "max_epoch='many'"),
    ("max_steps=0", "max_steps=0"),
    ("learning_rate=0", "learning_rate=0"),
    ("optim_type=sgd", "optim_type='sgd'"),
    ("warmup_steps=-1", "warmup_steps=-1"),
    ("val_check_interval=2", "val_check_interval=2"),
    ("val_check_interval=0", "val_check_interval=0"),
    ("precision=8", "precision='8'"),
    ("num_workers=-1", "num_workers=-1"),
    ("num_gpus=-1", "num_gpus=-1"),
    ("num_nodes=0", "num_nodes=0"),
    ("fast_dev_run=1", "fast_dev_run=1"),
    ("seed=-1", "seed=-1"),
    ("seed=8589934592", "seed=8589934592"),
    ("exp_name=../up", r"exp_name='\.\./up'"),
    (f"exp_name={300 * 'x'}", "exp_name="),
    ("end_lr=0.1", r"end_lr=0\.1.*learning_rate=0\.01"),
    ("test_only=True", "test_only=True.*load_path="),
    ("load_path=a resume_from=b", "load_path=a.*resume_from=b"),
    ("learning_rate=1e20 max_epoch=3", r"loss .*1e\+20"),
)
FILES = rows(
    "",
    ("data_root={wrong}/empty", r"make_arrow\.py"),
    ("data_root={wrong}/nowhere vit={wrong}/nowhere", r"data_root=.*make_arrow\.py"),
    ("data_root={wrong}/no_dev", r"make_arrow\.py"),
    ("data_root={wrong}/cut", r"mmimdb_train\.arrow"),
    ("data_root={wrong}/columns", r"mmimdb_train\.arrow"),
    ("data_root={wrong}/classes", r"mmimdb_train\.arrow"),
    (
        "task_finetune_food101 data_root={wrong}/classes",
        r"food101_train\.arrow",
    ),
    ("task_finetune_manifest data_root={wrong}/empty", r"train\.arrow"),
    ("task_finetune_manifest data_root={wrong}/unnamed", "task=manifest"),
    ("log_dir={wrong}/notes.pt", r"notes\.pt"),
    ("vit={wrong}/nowhere", "nowhere'"),
    ("vit={wrong}/empty", "empty "),
    ("vit={wrong}/cut_clip", "cut_clip"),
    ("vit={wrong}/notes.safetensors", r"notes\.safetensors"),
    ("vit={wrong}/notes.pt", r"notes\.pt"),
    ("vit={wrong}/tensors.pt", r"tensors\.pt"),
    ("load_path={wrong}/gone.pt", r"gone\.pt"),
    ("load_path={wrong}/empty", "empty .*epoch-"),
    ("load_path={wrong}/notes.pt", r"notes\.pt"),
    ("load_path={wrong}/cut.pt", r"cut\.pt"),
    ("load_path={wrong}/other.pt", r"other\.pt"),
    ("load_path={wrong}/fading.pt", "prompt_type='fading'"),
    ("load_path={wrong}/vit.pt", r"vit\.pt"),
    ("load_path={wrong}/plugins.pt", r"plugins\.pt"),
    ("load_path={wrong}/backbone.pt", r"backbone\.pt"),
    ("task_finetune_food101 load_path={run}", "task=mmimdb.*task=food101"),
    ("load_path={run} vit={wrong}/clip", "backbone_sha256"),
    ("load_path={run} prompt_type=none", "prompt_type=dcp.*prompt_type=none"),
    ("load_path={run} dcp.generator=fc", r"dcp\.generator=mlp.*dcp\.generator=fc"),
    ("paper load_path={run}", r"unfreeze=\['ln_post.*unfreeze=\[\]"),
    ("resume_from={run} learning_rate=0.5", r"learning_rate=0\.02.*learning_rate=0\.5"),
    ("resume_from={run} learning_rate=0.02 missing_seed=7", "missing_seed=0.*missing_seed=7"),
    ("resume_from={run} prompt_length=9", "prompt_length=6.*prompt_length=9"),
    ("resume_from={best}", r"-last\.pt"),
    ("resume_from={wrong}/empty", "empty .*epoch-"),
    ("missing_table.train={wrong}/nowhere.csv", r"nowhere\.csv"),
    ("missing_table.train={wrong}/short.csv", r"short\.csv"),
    (
        "missing_table.train={wrong}/three.csv",
        r"three\.csv.*missing_type='3'",
    ),
    ("missing_table.train={wrong}/open.jsonl", r"open\.jsonl"),
    ("missing_table.train={wrong}/table.txt", r"table\.txt.*\.csv"),
)
OTHERS = [
    Row("trian", "", "'trian'"),
    Row("--data_root datasets", "", "'--data_root'"),
    Row("data_root=datasets", "", "'data_root=datasets'"),
    Row("sweeep", "", "'sweeep'.*'sweep'"),
    Row("sweep predict", "load_path=x", "'sweep'.*'predict'"),
    Row("sweep sweeep", "load_path=x", "'sweeep'.*'sweep'"),
    *rows(
        "sweep",
        ("", "load_path="),
        ("load_path={wrong}/gone.pt", r"gone\.pt"),
        ("sweep.types=[]", r"sweep.types=\[\]"),
        ("'sweep.ratios=[0.5, 2]'", r"sweep\.ratios\.1=2"),
        ("sweep.predictions={wrong}/gone.arrow", r"gone\.arrow"),
        ('\'load_path=["a", "b"]\' sweep.predictions={wrong}/gone.arrow', r"sweep\.predictions=.*load_path="),
        ("sweep.predictions={wrong}/notes.arrow", r"notes\.arrow"),
    ),
    *rows(
        "check",
        ("data_root={wrong}/empty", r"make_arrow\.py"),
        ("data_root={wrong}/cut", r"mmimdb_train\.arrow"),
    ),
    *rows(
        "pretrain",
        ("pretrain.width=0", r"pretrain\.width=0"),
        ("pretrain.width=100", r"pretrain\.width=100"),
        ("pretrain.image_size=30", r"pretrain\.image_size=30"),
        ("pretrain.target={wrong}/notes.pt", r"notes\.pt"),
        ("data_root={wrong}/empty", r"make_arrow\.py"),
    ),
    *rows(
        "serve",
        ("", "load_path"),
        ("load_path={run} serve.port={port}", r"serve\.host=127\.0\.0\.1.*serve\.port="),
        ("load_path={run} serve.host=nowhere.invalid", r"serve\.host=nowhere\.invalid"),
        ("load_path={run} serve.port=70000", r"serve\.port=70000"),
    ),
    *rows(
        "reproduce",
        ("reproduce.only=[\\'method=MMP\\']", "method=MMP"),
        ("reproduce.only=[\\'way=DCP\\']", "way.*method"),
        ("reproduce.only=method", "reproduce.only='method'"),
        ("reproduce.experiment=tabel4", "tabel4.*table4"),
        ("reproduce.experiment=None", "reproduce.experiment="),
        ("reproduce.experiment={wrong}/list.yaml", r"list\.yaml"),
        ("reproduce.experiment={wrong}/open.yaml", r"open\.yaml"),
        ("reproduce.experiment={wrong}/key.yaml", "max_epochs"),
        ("reproduce.experiment=[\\'{wrong}/small.yaml\\',\\'{wrong}/small.yaml\\']", "small"),
        ("seed=3", r"reproduce.seeds=\[3\]"),
        ("reproduce.seeds=[]", r"reproduce.seeds=\[\]"),
        ("load_path=x", "load_path='x'"),
        ("fast_dev_run=True", "fast_dev_run=True"),
        ("test_ratio=0", "test_ratio=0"),
        ("reproduce.launcher=cloud", "reproduce.launcher='cloud'"),
        ("reproduce.launcher=slurm", "srun"),
        ("reproduce.jobs=0", "reproduce.jobs=0"),
        ("data_root={wrong}/empty", r"make_arrow\.py"),
    ),
]
IMAGES = [
    ("cut.png", r"cut\.png"),
    ("notes.png", r"notes\.png"),
    ("warned.png", r"warned\.png"),
    ("bomb.png", r"bomb\.png"),
    ("gone.png", r"gone\.png"),
]
PREDICT = rows(
    "predict",
    ("predict.text=a", "load_path"),
    ("load_path={run}", r"predict\.image.*predict\.text.*predict\.input"),
    ("load_path={run} predict.text=a predict.input={wrong}", r"predict\.input"),
    ("load_path={run} predict.text=2001", r"predict\.text=2001"),
    ("load_path={run} 'predict.text= '", r"predict\.text"),
    ("load_path={run} task=food101 predict.text=a", "task=mmimdb.*task=food101"),
    ("load_path={wrong}/fading.pt predict.text=a", "prompt_type='fading'"),
    *((f"load_path={{run}} predict.image={{wrong}}/{name}", pattern) for name, pattern in IMAGES),
    ("load_path={run} predict.input={wrong}/gone", r"wrong/gone"),
    ("load_path={run} predict.input={wrong}/films.txt", r"films\.txt.*\.csv.*\.jsonl"),
    ("load_path={run} predict.input={wrong}/empty", r"predict\.input=\S*empty"),
    ("load_path={run} predict.input={wrong}/there.csv", r"there\.csv"),
    ("load_path={run} predict.input={wrong}/bare.csv", r"predict\.input=\S*bare\.csv"),
    ("load_path={run} predict.input={wrong}/other.csv", "picture, words"),
    ("load_path={run} predict.input={wrong}/latin.csv", r"latin\.csv"),
    ("load_path={run} predict.input={wrong}/open.csv", r"open\.csv"),
    ("load_path={run} predict.input={wrong}/broken.parquet", r"broken\.parquet"),
    ("load_path={run} predict.input={wrong} predict.output=x.txt", r"predict\.output=x\.txt.*\.csv"),
    ("load_path={run} predict.input={wrong} predict.output={wrong}/there.csv", r"predict\.output=\S*there\.csv"),
)
RAW = "--dataset mmimdb --root {wrong}/raw/"
MEMES = "--dataset hateful_memes --root {wrong}/raw/"
CONVERT = [
    *rows(
        "make_arrow.py",
        ("--dataset mmimdb --root {wrong}/nowhere", r"DATA\.md"),
        (f"{RAW}empty", r"DATA\.md"),
        (f"{MEMES}empty", r"DATA\.md"),
        ("--dataset manifest --root {wrong}/raw/gone.csv", r"gone\.csv"),
        (f"{RAW}cut_label", r"0000004\.json"),
        (f"{RAW}cut_split", r"split\.json"),
        (f"{RAW}no_dev", "'dev'"),
        (f"{RAW}none", r"\S*mmimdb_dev\.arrow"),
        (f"{RAW}no_images", r"DATA\.md"),
        (f"{RAW}bad_images", r"mmimdb_dev\.arrow"),
        ("--dataset food101 --root {wrong}/raw/food", "'hot_dog'"),
        (f"{MEMES}memes", r"dev\.jsonl"),
        (f"{MEMES}unlabelled", r"test\.jsonl.*test_seen\.jsonl"),
        (f"{MEMES}seen", r"test_seen\.jsonl"),
        ("--dataset manifest --root {wrong}/films.txt", r"films\.txt"),
        ("--dataset manifest --root {wrong}/other.csv", "picture, words"),
        ("--dataset manifest --root {wrong}/split.csv --seed 3", "remove --shares and --seed"),
        ("--dataset manifest --root {wrong}/label.jsonl", "row 1 has the label True"),
        (f"{RAW}good --target {{wrong}}/notes.pt", r"notes\.pt"),
    ),
    *rows(
        "make_arrow.py",
        ("--dataset flowers --root r", "flowers.*mmimdb.*food101.*hateful_memes.*manifest"),
        ("--dataset mmimdb", "--dataset and --root are required"),
        ("--download --root r", "neither --root nor --image_size"),
        ("--download --image_size 8", "neither --root nor --image_size"),
        ("--download --dataset manifest", "mmimdb, food101 or hateful_memes"),
        ("--dataset mmimdb --root r --seed 1", "--seed are for --dataset manifest"),
        ("--dataset manifest --root r --shares 1 2", "expected 3 arguments"),
        ("--dataset manifest --root r --shares .5 .5 .5", r"0\.5.*0\.5.*0\.5"),
        ("--dataset manifest --root r --shares 1 0 0", "must be positive"),
        ("--dataset mmimdb --root r --image_size 0", "'0'"),
        ("--dataset mmimdb --root r --num_workers -1", "'-1'"),
        ("--dataset mmimdb --root r --verbose", "unrecognized arguments: --verbose"),
        code=2,
    ),
]
ROWS = [*NAMES, *VALUES, *FILES, *OTHERS, *PREDICT, *CONVERT]
