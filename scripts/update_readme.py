"""Write the demo's recorded table and the example's code into README.md, between markers.

python scripts/update_readme.py results/bench/cpu/demo.csv
"""

import argparse
import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def demo_table(path: Path) -> str:
    """A narrow Markdown table of the demo's CSV."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        "| method | top-1 (%) | Δ to dense, 95 % interval | MACs (%) | throughput, x fused dense "
        "| sink on object (%) | object recall (%) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    return "\n".join([*lines, *(_row(row) for row in rows)])


def _row(row: dict[str, str]) -> str:
    delta = ""
    if row["top1_delta"]:
        low, high = float(row["top1_delta_lo"]), float(row["top1_delta_hi"])
        delta = f"{float(row['top1_delta']):+.2f} [{low:+.2f}, {high:+.2f}]"
    cells = [
        row["method"],
        _number(row["top1"], ".2f"),
        delta,
        _number(row["flops_pct"], "+.2f"),
        _number(row["ratio_fused"], ".2f"),
        _number(row["sink_on_object_pct"], ".1f"),
        _number(row["object_recall_pct"], ".1f"),
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
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("demo", type=Path, help="the demo's CSV")
    given = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    text = replaced(text, "demo table", demo_table(given.demo))
    code = (ROOT / "examples/norm_top_k.py").read_text("utf-8").rstrip()
    text = replaced(text, "example", f"```python\n{code}\n```")
    readme.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
