"""Write docs/performance.md from benchmarks/results/*.json.

python -m benchmarks.tables
"""

import ast
import json
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, ROOT, Rows

PAGE = ROOT / "docs" / "performance.md"
HEAD = """# Performance

Written by `python -m benchmarks.tables` from `benchmarks/results/*.json`. Ratios compare two measurements of one run.
"""
SECTIONS = {
    "step": "The training step",
    "sweep": "The sweep",
    "input": "The input",
    "gpu": "One GPU",
    "predict": "Predictions",
    "startup": "Start-up",
    "costs": "Cost of each method",
    "backbones": "Methods on both backbones",
    "faults": "Killed jobs",
}


def cell(value: Any) -> str:
    """Format a number with four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def table(rows: Rows) -> str:
    """Return a Markdown table of rows with the same keys."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(name: str, title: str) -> str:
    """Return the description, the machine and the tables of one benchmark."""
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    first, _, *more = ast.get_docstring(ast.parse(source)).split("\n\n")  # the second is the command
    on = content["machine"]
    commit = f"commit {on['commit'][:7]}" if "commit" in on else "measured before the code was reorganised"
    where = f"{on['date']}, {on.get('gpu') or on['cpu']}, {on['cores']} cores, {on['threads']} threads"
    parts = [f"## {title}", first, *more, f"`{on['command']}`, {where}, torch {on['torch']}, {commit}"]
    for name, rows in content["results"].items():
        parts += [f"{name[0].upper()}{name[1:]}:", table(rows)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the page."""
    parts = [section(name, title) for name, title in SECTIONS.items() if (RESULTS / f"{name}.json").exists()]
    PAGE.write_text("\n".join((HEAD, *parts)), encoding="utf-8")


if __name__ == "__main__":
    main()
