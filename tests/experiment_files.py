"""Small experiments on the tiny data, and run.py in this process."""

import run

SMALL = """\
title: Two methods
source: Table 0
base: {task: mmimdb, max_epoch: 4, val_check_interval: 1.0, learning_rate: 0.02}
grid:
  method:
    none: {prompt_type: none}
    DCP: {prompt_type: dcp}
read: {splits: [val, test]%s}
rows: [%s]
columns: [split]
published:
%s
"""
PUBLISHED = "  - {method: DCP, split: test, value: 51.42}"
CASES = ", cases: {types: [text, image], ratios: [0.3, 1.0]}"
CASE = "  - {method: DCP, split: test, test_type: image, test_ratio: 0.3, value: 40}"


def call(*words):
    """The same command line in this process."""
    run.command_line(["run.py", *map(str, words)])


def write(folder):
    """Two methods, read in their own case and in others."""
    (folder / "small.yaml").write_text(SMALL % ("", "method", PUBLISHED))
    rows = "test_type, test_ratio, method"
    (folder / "cases.yaml").write_text(SMALL % (CASES, rows, CASE))
    return folder
