"""The commands, settings, links and files of the pages exist; `make docs-check` runs the commands."""

import importlib.util
import re
import shlex

import pytest

import make_arrow
import run
from clip.cli.arguments import check_arguments
from clip.cli.schema import DEFAULTS
from clip.config import ex
from clip.utils.command_line import flatten
from clip.utils.errors import UserError
from tests.docs import pages

NAMES = [pages.name_of(page) for page in pages.PAGES]
COMMANDS = [command for page in pages.PAGES for command in pages.commands(page)]
SETTING = re.compile(r"^([a-z]\w*(?:\.\w+)?)=(?!=)")
NOT_SETTINGS = {"key", "backbone_sha256", "missing_tables"}  # of messages
NOT_FILES = {"vilt/utils/write_flowers.py"}  # the example of docs/extend.md
PATH = re.compile(r"(?:docs|clip|vilt|benchmarks|experiments|tests|fig)/[\w./*-]*")
INCOMPLETE = re.compile(r"…|--help|with$")


def parse(words):
    """Check a command line as the program does, without running it."""
    if words[:2] == ["python", "make_arrow.py"]:
        make_arrow.parse_args(words[2:])
    elif "run.py" in words:
        words = [word for word in words[words.index("run.py") + 1 :] if not word.endswith("run.json")]  # of a run
        check_arguments(words, run.COMMANDS, ex.named_configs, DEFAULTS)
        if "with" in words:  # validates the values
            ex.run_commandline(["run.py", "print_config", *words[words.index("with") :]])
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]), words
    elif words[0] == "make":
        target = next(word for word in words[1:] if "=" not in word)
        assert re.search(rf"^{target}:", (pages.ROOT / "Makefile").read_text(), re.M), words


@pytest.mark.parametrize("command", [each for each in COMMANDS if "fading" not in each.text], ids=lambda c: c.text[:70])
def test_a_command_is_valid(command):
    text = command.text
    if text.startswith("#!"):
        text = next(line for line in text.splitlines() if "run.py" in line)
    parse(shlex.split(text, comments=True))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("python run.py with prompt_lenght=6", UserError),
        ("python run.py with missing_ratio=7", SystemExit),
        ("python run.py evaluate with task_finetune_mmimdb", UserError),
        ("python make_arrow.py --data mmimdb", SystemExit),
        ("make docs", AssertionError),
    ],
)
def test_a_wrong_command_is_noticed(line, error):
    with pytest.raises(error):
        parse(line.split())


def test_most_commands_are_run_and_every_exception_is_needed():
    reasons = [command.reason_not_run for command in COMMANDS]
    assert set(pages.NOT_RUN.values()) == {*reasons} - {None}
    assert reasons.count(None) > len(reasons) / 2


@pytest.mark.parametrize("name", NAMES)
def test_links_and_files_exist(name):
    page = pages.ROOT / name
    for target in pages.links(page):
        if target.startswith("https:"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in pages.anchors(linked), target
    for span in pages.spans(page):
        if PATH.fullmatch(span) and span not in NOT_FILES:
            assert list(pages.ROOT.glob(span.rstrip("/"))), span
    for test in re.findall(r"(?<![\w`])test_[a-z_]+\b", pages.prose(page)):
        assert test in {*DEFAULTS, "test_seen"} or list((pages.ROOT / "tests").glob(f"*/{test}.py")), test


@pytest.mark.parametrize("name", NAMES)
def test_settings_and_commands_in_the_text_exist(name):
    known = {*DEFAULTS, *flatten(DEFAULTS)}
    for span in pages.spans(pages.ROOT / name):
        for word in span.split() if "(" not in span else ():  # Python has keyword arguments
            if found := SETTING.match(word.lstrip("'\"")):
                assert found[1] in known | NOT_SETTINGS, span
        if pages.COMMAND.match(span) and not INCOMPLETE.search(span):
            parse(shlex.split(span))


def test_the_index_lists_every_page():
    linked = set(pages.links(pages.ROOT / "docs/README.md"))
    assert {page.name for page in (pages.ROOT / "docs").glob("*.md")} - {"README.md"} <= linked
