"""Parameters and FLOPs of each method at the sizes of ViT-B/16, and what the paper says of DCP.

    python -m benchmarks.costs

23 classes. The share is that of the backbone, without the head. FLOPs are those of matrix products, two for a
multiply-add, of one complete pair with a text of 77 tokens; a step is its forward and backward pass. Ratios are to the
baseline `none`. The claims are those of section 4.1, Table 5 and the README.
"""

from benchmarks import machine
from benchmarks.inputs import CLASSES, VIT_B_16
from clip.evaluation.costs import PUBLISHED_SIZES, cost
from clip.modules.prompts import PROMPT_TYPES


def claims() -> machine.Rows:
    """Compare the paper's claims about DCP with what is counted, in the same digits."""
    parts, longer = (cost(VIT_B_16, "dcp", CLASSES, length) for length in (36, 48))
    printed = cost(VIT_B_16, "dcp", CLASSES, 36, formulas="paper", unfreeze=())
    prompts = parts["prompts"] + parts["generators"]
    whole, patches_32 = (cost(PUBLISHED_SIZES[name], "none", CLASSES)["backbone"] for name in ("ViT-B/16", "ViT-B/32"))
    slope = longer["prompts"] + longer["generators"] - prompts
    all_added = prompts + parts["unfrozen"]
    rows = [
        ("the backbone", "151M", f"{whole / 1e6:.0f}M"),
        ("the backbone, were it ViT-B/32", "151M", f"{patches_32 / 1e6:.0f}M"),
        ("prompts and generators", "4.0M", f"{prompts / 1e6:.1f}M"),
        ("prompts, generators and unfrozen parts", "4.0M", f"{all_added / 1e6:.1f}M"),
        (
            "prompts and generators, printed formulas",
            "4.0M",
            f"{(printed['prompts'] + printed['generators']) / 1e6:.1f}M",
        ),
        ("12 more prompt tokens (Table 5)", "1.2M", f"{slope / 1e6:.2g}M"),
        ("4.0M as a share of 151M", "2.4 %", f"{100 * 4.0 / 151:.1f} %"),
        ("prompts and generators, as a share", "2.4 %", f"{100 * prompts / whole:.1f} %"),
    ]
    out = [
        {"claim": claim, "paper": paper, "counted": counted, "agrees": paper == counted}
        for claim, paper, counted in rows
    ]
    share = all_added / whole
    bound = {"claim": "all that is added or unfrozen, as a share", "paper": "< 4 %"}
    return [*out, bound | {"counted": f"{100 * share:.1f} %", "agrees": share < 0.04}]


def main() -> None:
    """Count and write results/costs.json."""
    rows = [cost(VIT_B_16, name, CLASSES) for name in PROMPT_TYPES]
    base = next(row.copy() for row in rows if row["method"] == "none")
    for row in rows:
        del row["backbone"]
        for name in ("forward", "step"):
            flops = row.pop(f"{name}_flops")
            row |= {f"{name}, GFLOP": flops / 1e9, f"ratio of {name}": flops / base[f"{name}_flops"]}
    machine.write("costs", {"methods": rows, "claims about DCP": claims()})


if __name__ == "__main__":
    main()
