"""Write the demos' recorded tables and the example's code into README.md, between markers.

python scripts/update_readme.py results/bench/cpu/demo.csv results/bench/cpu/demo_video/table.csv \
    results/bench/cpu/demo_vlm/table.csv
"""

import argparse
import csv
import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Of each table: its marker in README.md, the heads of its columns after the method's, and the keys
# in the CSV, with formats, of those after the cost.
TABLES = {
    "demo table": (
        "top-1 (%) | Δ to dense, 95 % interval | MACs (%) | throughput, x fused dense "
        "| sink on object (%) | object recall (%)",
        {"ratio_fused": ".2f", "sink_on_object_pct": ".1f", "object_recall_pct": ".1f"},
    ),
    "video table": (
        "top-1 (%) | Δ to dense, 95 % interval | MACs (%) | sink moves (patches) "
        "| stop block changes (%) | kept patches, overlap (%)",
        {"sink_distance": ".2f", "stop_changes": ".1f", "kept_overlap": ".1f"},
    ),
    "question table": (
        "right (%) | Δ to full, 95 % interval | MACs (%) | rows in a layer "
        "| KV cache (%) | F1 of presence | says yes (%) | corrected | corrupted "
        "| object recall (%)",
        {
            "layer_visual_rows": ".1f", "kv_mib_pct": ".0f", "f1_presence": ".1f",
            "yes_share_presence": ".1f", "mcnemar_c": ".0f", "mcnemar_b": ".0f",
            "object_recall_pct": ".1f",
        },
    ),
}  # fmt: skip


def table_of(marker: str, path: Path) -> str:
    """A narrow Markdown table of a demo's CSV."""
    heads, more = TABLES[marker]
    rule = f"| --- |{' ---: |' * len(heads.split(' | '))}"
    return "\n".join([f"| method | {heads} |", rule, *(_row(row, more) for row in rows_of(path))])


def _row(row: dict[str, str], more: Mapping[str, str]) -> str:
    """Method, accuracy and cost, then more columns with their formats."""
    delta = ""
    if row["top1_delta"]:
        low, high = float(row["top1_delta_lo"]), float(row["top1_delta_hi"])
        delta = f"{float(row['top1_delta']):+.2f} [{low:+.2f}, {high:+.2f}]"
    cells = [
        row["method"],
        _number(row["top1"], ".2f"),
        delta,
        _number(row["flops_pct"], "+.2f"),
        *(_number(row[name], spec) for name, spec in more.items()),
    ]
    return "| " + " | ".join(cells) + " |"


def _number(text: str, spec: str) -> str:
    return format(float(text), spec) if text else ""


def replaced(text: str, marker: str, content: str) -> str:
    """The text with `content` between a marker and its end marker, which is added if missing."""
    begin, end = f"<!-- {marker} -->", f"<!-- end {marker} -->"
    block = f"{begin}\n{content}\n{end}"
    if end in text:
        return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: block, text, flags=re.S)
    return text.replace(begin, block)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("demo", type=Path, help="the demo's CSV")
    parser.add_argument("video", type=Path, help="the video demo's CSV")
    parser.add_argument("questions", type=Path, help="the CSV of the demo of questions")
    given = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    for marker, path in zip(TABLES, (given.demo, given.video, given.questions), strict=True):
        text = replaced(text, marker, table_of(marker, path))
    code = (ROOT / "examples/norm_top_k.py").read_text("utf-8").rstrip()
    text = replaced(text, "example", f"```python\n{code}\n```")
    readme.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
