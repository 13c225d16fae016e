"""Tables as LaTeX with booktabs, to be read in with \\input."""

from collections.abc import Sequence

from asap.report.table import Table, spans

HEADER = "% needs \\usepackage{booktabs} in the preamble\n"
_SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "±": "$\\pm$",
    "×": "$\\times$",
    "Δ": "$\\Delta$",
    "α": "$\\alpha$",
    "τ": "$\\tau$",
    "ρ": "$\\rho$",
    "–": "--",
}


def to_latex(tables: Sequence[Table]) -> str:
    """One `table` environment each: caption, columns in groups, footnotes, remarks."""
    return HEADER + "".join(f"\n{_environment(table)}" for table in tables)


def escape(text: str) -> str:
    """The text with LaTeX's special characters escaped."""
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def _environment(table: Table) -> str:
    header, body, notes = table.texts(flat=True)
    models = [row.values.get("model") for row in table.rows]
    groups = [column.group for column in table.columns]
    below = [f"{mark} {text}" for text, mark in notes.items()] + list(table.remarks)
    lines = [
        "\\begin{table}[tbp]",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}",
        f"\\caption{{{escape(_sentences(table))}}}",
        f"\\begin{{tabular}}{{{''.join('l' if c.left else 'r' for c in table.columns)}}}",
        "\\toprule",
        *_group_lines(groups),
        _line(header),
    ]
    for i, cells in enumerate(table.named_once(body)):
        new = i == 0 or models[i] != models[i - 1]
        lines += ["\\midrule"] if new else []
        lines.append(_line(cells))
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += [f"\\par\\smallskip\\raggedright\\scriptsize {escape(text)}" for text in below]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _sentences(table: Table) -> str:
    """Title and caption as sentences."""
    parts = [table.title, *table.caption]
    return " ".join([*(f"{part.rstrip('.')}." for part in parts[:-1]), parts[-1]])


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(escape(cell) for cell in cells)} \\\\"


def _group_lines(groups: Sequence[str]) -> list[str]:
    """The groups' names above their columns, with a rule under each."""
    named = [(name, start, end) for name, start, end in spans(groups)]
    cells = [f"\\multicolumn{{{end - start}}}{{c}}{{{escape(n)}}}" for n, start, end in named]
    rules = [f"\\cmidrule(lr){{{start + 1}-{end}}}" for name, start, end in named if name]
    return [f"{' & '.join(cells)} \\\\", " ".join(rules)] if rules else []
