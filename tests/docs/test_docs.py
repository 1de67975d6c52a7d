"""What the pages say is there: links, files, settings; each command is known, and run or excused.

`make docs-check` runs the commands.
"""

import importlib.util
import re

import pytest

import make_arrow
import run
from clip.cli.arguments import check_arguments, check_key
from clip.cli.schema import validate
from clip.config import ex
from clip.utils.errors import UserError
from tests.docs import pages as docs

NAMES = [docs.name_of(page) for page in docs.PAGES]
COMMANDS = [command for page in docs.PAGES for command in docs.commands(page)]
FOLDERS = ("docs", "clip", "vilt", "benchmarks", "experiments", "tests", "fig")
SETTING = re.compile(r"^([a-z]\w*(?:\.\w+)?)=(?!=)")
# Of error messages, or examples.
NO_SETTINGS = {"fading.fade", "key", "backbone_sha256", "missing_tables"}
NO_FILES = {"vilt/utils/write_flowers.py"}
INCOMPLETE = re.compile(r"…|\.\.\.|--help|fading")


def parse(words):
    """Read a command line as the program would, and stop before it does anything."""
    if words[:2] == ["python", "make_arrow.py"]:
        make_arrow.parse_args(words[2:])
    elif "run.py" in words:
        rest = words[words.index("run.py") + 1 :]
        check_arguments(rest, ex)
        if "with" in rest:
            done = run.ex.run_commandline(["run.py", "print_config", *rest[rest.index("with") :]])
            validate(done.config)
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]), words
    elif words[0] == "make":
        target = next(word for word in words[1:] if "=" not in word)
        assert re.search(rf"^{target}:", (docs.ROOT / "Makefile").read_text(), re.M), words


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text[:70])
def test_a_command_is_one_that_the_programs_know(command):
    if command.text.startswith("#!"):
        line = next(line for line in command.text.splitlines() if "run.py" in line)
        parse(line.split())
    else:
        parse(command.words)


def test_an_unknown_setting_or_command_of_a_page_is_noticed():
    for line in ("python run.py with prompt_lenght=6", "python run.py with missing_ratio=7",
                 "python run.py evaluate with task_finetune_mmimdb"):  # fmt: skip
        with pytest.raises(UserError):
            parse(line.split())
    with pytest.raises(SystemExit):
        parse(["python", "make_arrow.py", "--data", "mmimdb"])
    with pytest.raises(AssertionError):
        parse(["make", "docs"])


def test_every_excuse_is_of_use():
    used = {command.excuse for command in COMMANDS}
    own = {"make docs-check": "it would run itself"}  # for whoever puts it into a block
    assert set(docs.NOT_RUN.values()) - used <= set(own.values())
    assert sum(command.excuse is None for command in COMMANDS) > len(COMMANDS) / 2


@pytest.mark.parametrize("name", NAMES)
def test_links_and_files_are_there(name):
    page = docs.ROOT / name
    for target in docs.links(page):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in docs.anchors(there), target
    for span in docs.spans(page):
        if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./*-]*", span) and span not in NO_FILES:
            assert list(docs.ROOT.glob(span.rstrip("/"))), span
    for test in re.findall(r"\btest_[a-z_]+\b", docs.prose(page)):
        if test not in ex.configurations[0]():
            assert (docs.ROOT / f"tests/{test}.py").exists() or test.endswith("_seen"), test


@pytest.mark.parametrize("name", NAMES)
def test_settings_and_commands_in_the_text_are_there(name):
    defaults = ex.configurations[0]()
    for span in docs.spans(docs.ROOT / name):
        for word in span.split() if "(" not in span else ():  # Python has its own
            if (found := SETTING.match(word)) and found[1] not in NO_SETTINGS:
                check_key(found[1], defaults)
        if docs.COMMAND.match(span) and not INCOMPLETE.search(span):
            parse(docs.Command(name, span).words)


def test_every_page_stands_in_the_index():
    linked = set(docs.links(docs.ROOT / "docs/README.md"))
    assert {page.name for page in (docs.ROOT / "docs").glob("*.md")} - {"README.md"} <= linked
