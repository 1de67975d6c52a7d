"""What users type by mistake -> the one line they get: command, its words, a pattern, exit code.

{wrong}: the folder of wrong_files.py; {arrow}: good arrow files; {run}: the folder of a run on
MM-IMDb; {best}: its best checkpoint; {port}: one that is taken; {out}: an empty folder. Every row
of run.py is asked with the tiny data, model and device for the settings that it does not name.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """A command line and what answers it.

    Attributes:
        command: of run.py ("" trains), or make_arrow.py.
        words: what follows it (behind ``with``), as one types it in a shell.
        pattern: regular expression, found in the one line on stderr.
        code: exit code.
    """

    command: str
    words: str
    pattern: str
    code: int = 1


def rows(command: str, *pairs: tuple[str, str], code: int = 1) -> list[Row]:
    """Give the rows of one command."""
    return [Row(command, *pair, code) for pair in pairs]


NAMES = rows(
    "",
    ("task_finetune_mmidb", "'task_finetune_mmidb' is no .*did you mean 'task_finetune_mmimdb'"),
    ("prompt_lenght=6", "'prompt_lenght' is no .*did you mean 'prompt_length'"),
    ("dcp.generater=fc", "'dcp.generater' is no .*did you mean 'dcp.generator'"),
    ("formulas=paper", "'formulas' is no .*did you mean 'dcp.formulas'"),
    ("missing_ratio.dev=0.3", "'missing_ratio.dev' is no .*did you mean"),
    ("prompt_type = dcp", "'prompt_type' is no .* a setting; write prompt_type="),
    ("sweep_ratios=[0.3, 0.7]", "'0.7]' is no preset, .* in quotes"),
    ("maple.depth=1", "'maple.depth' is no setting"),
    ("max_text_len=128", "'max_text_len' is no setting.*print_config lists them all"),
)
VALUES = rows(
    "",
    ("task=vqa", "task='vqa' is not valid; give one of mmimdb, food101, hatememes"),
    ("prompt_type=cocoop", "prompt_type='cocoop' is not valid; .*dcp, none, coop.*maple, dept"),
    ("missing_ratio=1.5", r"missing_ratio\.train=1\.5 .* from 0 to 1"),
    ("missing_ratio.train=7", r"missing_ratio\.train=7 .* from 0 to 1"),
    ("missing_ratio=0,7", r"missing_ratio\.train=\[0, 7\] .* from 0 to 1"),
    ("'missing_ratio=float(\"nan\")'", r"missing_ratio\.train='float"),
    ("test_ratio=-0.1", r"test_ratio=-0\.1 .* from 0 to 1"),
    ("both_ratio=2", "both_ratio=2 .* from 0 to 1"),
    ("missing_type.train=audio", r"missing_type\.train='audio' .* text, image, both"),
    ("test_type=none", "test_type='none' .* text, image, both"),
    ("missing_seed=-1", "missing_seed=-1 .* at least 0"),
    ("plots=second", "plots='second' .* first, longest, all"),
    ("prompt_length=0", "prompt_length=0 .* at least 1"),
    ("prompt_length=10", "prompt_length=10 .*three"),
    ("prompt_depth=0", "prompt_depth=0 .* at least 1"),
    ("prompt_depth=9", "prompt_depth=9 .*1 to 3"),
    ("dcp.common_depth=9", r"dcp\.common_depth=9 .*1 to 3"),
    ("dcp.formulas=mine", r"dcp\.formulas='mine' .*released, paper"),
    ("dcp.prompts=C", r"dcp\.prompts='C' .*A, B, full, none"),
    ("'dcp.prompts=[\"A\"]'", r"dcp\.prompts=\['A'\] .*A, B, full, none"),
    ("dcp.reduction=0", r"dcp\.reduction=0 .*at least 1"),
    ("dcp=full", r"dcp='full' .*dcp\.prompts="),
    ("coop.per_case=1", r"coop\.per_case=1 .*True, False"),
    ("coop=yes", r"coop='yes' .*coop\.per_case="),
    ("dept.weight=2", r"dept\.weight=2 .*between 0 and 1"),
    ("dept.base=dept", r"dept\.base='dept' .*mmp, mmp_attention"),
    ("unfreeze=[\\'head\\']", "unfreeze=.*head.*ln_post"),
    ("activation=relu", "activation='relu' .*quick_gelu"),
    ("batch_size=0", "batch_size=0 .* at least 1"),
    ("per_gpu_batchsize=0", "per_gpu_batchsize=0 .* auto or a whole number, at least 1"),
    ("per_gpu_batchsize=3", "batch_size=8 .*3"),
    ("per_gpu_batchsize=64", "batch_size=8 .*64"),
    ("max_epoch=2.5", r"max_epoch=2\.5 .* whole number"),
    ("max_epoch=many", "max_epoch='many' .* whole number"),
    ("max_steps=0", "max_steps=0 .* at least 1"),
    ("learning_rate=0", "learning_rate=0 .* above 0"),
    ("optim_type=sgd", "optim_type='sgd' .* adam"),
    ("warmup_steps=-1", "warmup_steps=-1 .* from 0"),
    ("val_check_interval=2", "val_check_interval=2 .* above 0 to 1"),
    ("val_check_interval=0", "val_check_interval=0 .* above 0 to 1"),
    ("precision=8", "precision=8 .* one of 16, bf16, 32"),
    ("num_workers=-1", "num_workers=-1 .* at least 0"),
    ("num_gpus=-1", "num_gpus=-1 .* at least 0"),
    ("num_nodes=0", "num_nodes=0 .* at least 1"),
    ("fast_dev_run=1", "fast_dev_run=1 .* True or False"),
    ("seed=-1", "seed=-1 .* from 0"),
    ("seed=8589934592", "seed=8589934592 .* to 4294967295"),
    ("exp_name=../up", r"exp_name='\.\./up' .* without slashes"),
    (f"exp_name={300 * 'x'}", "exp_name=.* 1 to 100 letters"),
    ("end_lr=0.1", r"end_lr=0\.1 must be below learning_rate=0\.01"),
    ("test_only=True", "test_only=True needs load_path="),
    ("load_path=a resume_from=b", "load_path=a .* resume_from=b .* one of them"),
    ("learning_rate=1e20 max_epoch=3", r"diverged.*1e\+20"),
)
FILES = rows(
    "",
    ("data_root={wrong}/empty", r"mmimdb_train.*make_arrow\.py --dataset mmimdb"),
    ("data_root={wrong}/nowhere vit={wrong}/nowhere", r"data_root=.*nowhere.*make_arrow\.py"),
    ("data_root={wrong}/no_dev", r"mmimdb_dev.*make_arrow\.py --dataset mmimdb"),
    ("data_root={wrong}/cut", r"mmimdb_train\.arrow .*no whole arrow"),
    ("data_root={wrong}/columns", r"mmimdb_train\.arrow .*plots"),
    ("data_root={wrong}/classes", r"mmimdb_train\.arrow: labels of 2 classes, the task has 23"),
    (
        "task_finetune_food101 data_root={wrong}/classes",
        r"food101_train\.arrow: row 0 has the label 101;",
    ),
    ("task_finetune_manifest data_root={wrong}/empty", r"no train\.arrow; make it with"),
    ("task_finetune_manifest data_root={wrong}/unnamed", "do not say their classes"),
    ("log_dir={wrong}/notes.pt", r"notes\.pt.*check the paths"),
    ("vit={wrong}/nowhere", "nowhere' is neither a file, a folder, nor one of .*ViT-B/16"),
    ("vit={wrong}/empty", "empty "),
    ("vit={wrong}/cut_clip", "cut_clip"),
    ("vit={wrong}/notes.safetensors", r"notes\.safetensors"),
    ("vit={wrong}/notes.pt", r"notes\.pt"),
    ("vit={wrong}/tensors.pt", r"tensors\.pt"),
    ("load_path={wrong}/gone.pt", r"gone\.pt .*epoch-"),
    ("load_path={wrong}/empty", r"empty .*holds no epoch-"),
    ("load_path={wrong}/notes.pt", r"notes\.pt"),
    ("load_path={wrong}/cut.pt", r"cut\.pt"),
    ("load_path={wrong}/other.pt", r"other\.pt .*no checkpoint"),
    ("load_path={wrong}/fading.pt", "prompt_type='fading'"),
    ("task_finetune_food101 load_path={run}", "task=mmimdb, .*task=food101"),
    ("load_path={run} vit={wrong}/clip", "backbone_sha256"),
    ("load_path={run} prompt_type=none", "prompt_type=dcp, .*prompt_type=none"),
    ("load_path={run} dcp.generator=fc", r"has dcp\.generator=mlp, .*dcp\.generator=fc"),
    ("paper load_path={run}", r"unfreeze=\['ln_post.*unfreeze=\[\];"),
    ("resume_from={run} learning_rate=0.5", r"learning_rate=0\.02, .*learning_rate=0\.5"),
    ("resume_from={run} learning_rate=0.02 missing_seed=7", "missing_tables"),
    ("resume_from={run} prompt_length=9", "prompt_length=6, .*prompt_length=9"),
    ("resume_from={best}", r"no optimiser to go on with; .*-last\.pt"),
    ("resume_from={wrong}/empty", r"empty .*holds no epoch-"),
    ("missing_table.train={wrong}/nowhere.csv", r"nowhere\.csv"),
    ("missing_table.train={wrong}/short.csv", r"short\.csv .*1 .*24"),
    (
        "missing_table.train={wrong}/three.csv",
        r"three\.csv, record 1, has missing_type='3': ",
    ),
    ("missing_table.train={wrong}/open.jsonl", r"open\.jsonl"),
    ("missing_table.train={wrong}/table.txt", r"table\.txt: .*\.csv"),
)
OTHERS = [
    Row("trian", "", "'trian' is no command.*; to train: python run.py with"),
    Row("--data_root datasets", "", "'--data_root' is no option; .* python run.py with"),
    Row("data_root=datasets", "", "'data_root=datasets' must stand behind with"),
    Row("sweeep", "", "'sweeep' is no command; did you mean 'sweep'"),
    *rows(
        "sweep",
        ("", "sweep needs load_path="),
        ("load_path={wrong}/gone.pt", r"gone\.pt is no checkpoint"),
        ("sweep_types=[]", r"sweep_types=\[\] .*at least one"),
        ("'sweep_ratios=[0.5, 2]'", r"sweep_ratios=\[0\.5, 2\] .*from 0 to 1"),
        ("predictions={wrong}/gone.arrow", r"gone\.arrow"),
        ("predictions={wrong}/notes.arrow", r"notes\.arrow"),
    ),
    *rows(
        "check",
        ("data_root={wrong}/empty", r"make_arrow\.py --dataset mmimdb"),
        ("data_root={wrong}/cut", r"mmimdb_train\.arrow .*no whole arrow"),
    ),
    *rows(
        "pretrain",
        ("pretrain.width=0", r"pretrain\.width=0 .*at least 1"),
        ("pretrain.width=100", r"pretrain\.width=100"),
        ("pretrain.image_size=30", r"pretrain\.image_size=30"),
        ("pretrain.target={wrong}/notes.pt", r"notes\.pt"),
        ("data_root={wrong}/empty", r"make_arrow\.py --dataset mmimdb"),
    ),
    *rows(
        "serve",
        ("", "load_path"),
        ("load_path={run} serve.port={port}", r"serve\.host=127\.0\.0\.1 serve\.port="),
        ("load_path={run} serve.host=nowhere.invalid", r"serve\.host=nowhere\.invalid"),
        ("load_path={run} serve.port=70000", r"serve\.port=70000"),
    ),
    *rows(
        "reproduce",
        ("only=[\\'method=MMP\\']", "method=MMP.*none, DCP"),
        ("only=[\\'way=DCP\\']", "way.*method"),
        ("only=method", "only='method' .*task=mmimdb"),
        ("experiment=tabel4", "tabel4 is no file.*table4"),
        ("experiment=None", "experiment=.*figure3"),
        ("experiment={wrong}/list.yaml", r"list\.yaml"),
        ("experiment={wrong}/open.yaml", r"open\.yaml is no YAML"),
        ("experiment={wrong}/key.yaml", "key: 'max_epochs' is no .*did you mean 'max_epoch'"),
        ("experiment=[\\'{wrong}/small.yaml\\',\\'{wrong}/small.yaml\\']", "two.*small"),
        ("seed=3", r"seeds=\[3\]"),
        ("seeds=[]", r"seeds=\[\] .*at least one"),
        ("load_path=x", "load_path='x' has no place"),
        ("fast_dev_run=True", "fast_dev_run=True has no place"),
        ("test_ratio=0", "test_ratio=0 has no place"),
        ("launcher=cloud", "launcher='cloud' .*local, slurm"),
        ("launcher=slurm", "srun"),
        ("jobs=0", "jobs=0 .*at least 1"),
        ("data_root={wrong}/empty", r"make_arrow\.py"),
    ),
]
IMAGES = [
    ("cut.png", r"cut\.png"),
    ("notes.png", r"notes\.png"),
    ("warned.png", r"warned\.png.* 89,478,485 pixels"),
    ("bomb.png", r"bomb\.png.* 89,478,485 pixels"),
    ("gone.png", r"gone\.png"),
]
PREDICT = rows(
    "predict",
    ("predict.text=a", "load_path"),
    ("load_path={run}", r"predict\.image.*predict\.text.*predict\.input"),
    ("load_path={run} predict.text=a predict.input={wrong}", r"predict\.input"),
    ("load_path={run} predict.text=2001", r"predict\.text=2001"),
    ("load_path={run} 'predict.text= '", r"predict\.text"),
    ("load_path={run} task=food101 predict.text=a", "task=mmimdb, .*task=food101"),
    ("load_path={wrong}/fading.pt predict.text=a", "prompt_type='fading'"),
    *((f"load_path={{run}} predict.image={{wrong}}/{name}", pattern) for name, pattern in IMAGES),
    ("load_path={run} predict.input={wrong}/gone", r"wrong/gone"),
    ("load_path={run} predict.input={wrong}/films.txt", r"films\.txt .*\.csv, \.jsonl"),
    ("load_path={run} predict.input={wrong}/empty", r"predict\.input=\S*empty"),
    ("load_path={run} predict.input={wrong}/there.csv", r"there\.csv .*none"),
    ("load_path={run} predict.input={wrong}/bare.csv", r"predict\.input=\S*bare\.csv"),
    ("load_path={run} predict.input={wrong}/other.csv", "picture, words"),
    ("load_path={run} predict.input={wrong}/latin.csv", r"latin\.csv"),
    ("load_path={run} predict.input={wrong}/open.csv", r"open\.csv"),
    ("load_path={run} predict.input={wrong}/broken.parquet", r"broken\.parquet"),
    ("load_path={run} predict.input={wrong} predict.output=x.txt", r"predict\.output=x\.txt .*\.csv"),
    ("load_path={run} predict.input={wrong} predict.output={wrong}/there.csv", r"predict\.output=\S*there\.csv"),
)
RAW = "--dataset mmimdb --root {wrong}/raw/"
MEMES = "--dataset hateful_memes --root {wrong}/raw/"
CONVERT = [
    *rows(
        "make_arrow.py",
        ("--dataset mmimdb --root {wrong}/nowhere", r"nowhere .*DATA\.md"),
        (f"{RAW}empty", r"see DATA\.md"),
        (f"{MEMES}empty", r"see DATA\.md"),
        ("--dataset manifest --root {wrong}/raw/gone.csv", r"gone\.csv does not exist"),
        (f"{RAW}cut_label", r"0000004\.json is not valid JSON"),
        (f"{RAW}cut_split", r"split\.json is not valid JSON"),
        (f"{RAW}no_dev", "no list of names under 'dev'"),
        (f"{RAW}none", r"no row for \S*mmimdb_dev\.arrow: the split is empty"),
        (f"{RAW}no_images", r"has no images; see DATA\.md"),
        (f"{RAW}bad_images", r"mmimdb_dev\.arrow: image is empty: 2"),
        ("--dataset food101 --root {wrong}/raw/food", "class 'hot_dog'"),
        (f"{MEMES}memes", r"dev\.jsonl line 1 has the label 2"),
        (f"{MEMES}unlabelled", r"test\.jsonl line 1 has no label; rename test_seen\.jsonl"),
        (f"{MEMES}seen", r"rename test_seen\.jsonl.*exists"),
        ("--dataset manifest --root {wrong}/films.txt", r"films\.txt is not a table"),
        ("--dataset manifest --root {wrong}/other.csv", "has no column .*picture, words"),
        ("--dataset manifest --root {wrong}/split.csv", "no row for val"),
        ("--dataset manifest --root {wrong}/split.csv --seed 3", "remove --shares and --seed"),
        ("--dataset manifest --root {wrong}/label.jsonl", "row 1 has the label True"),
        (f"{RAW}good --target {{wrong}}/notes.pt", r"notes\.pt is a file"),
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
        ("--dataset manifest --root r --shares .5 .5 .5", r"0\.5, 0\.5, 0\.5.*sum to 1"),
        ("--dataset manifest --root r --shares 1 0 0", "must be positive"),
        ("--dataset mmimdb --root r --image_size 0", "'0' must be a whole number from 1 on"),
        ("--dataset mmimdb --root r --num_workers -1", "'-1' must be a whole number from 0 on"),
        ("--dataset mmimdb --root r --verbose", "unrecognized arguments: --verbose"),
        code=2,
    ),
]
ROWS = [*NAMES, *VALUES, *FILES, *OTHERS, *PREDICT, *CONVERT]
