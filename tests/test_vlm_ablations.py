"""The paper's ablations before a language model: composition (Table 10), anchors (Table 11)."""

from dataclasses import asdict

import pytest
from omegaconf import OmegaConf
from test_configs import spec_of

from asap.errors import RequestError
from asap.methods import build
from asap.methods.asap.method import Asap
from asap.report.paper import paper_table
from asap.spec.configs import refuse_unused_points

# The differences from only pooling with a budget, by the paper's names (vlm.md, section 6).
COMPOSITION = {
    "LLaVA (Full)": None,
    "Only Pooling": {"max_tokens": None},
    "+ VisPruner": {"plugin": "features", "scores": "attention", "pair_order": "attention"},
    "+ VisPruner + Transition Accumulation": {"plugin": "features", "pair_order": "attention"},
    "+ VisPruner (Diffusion Dist)": {
        "plugin": "diffusion", "scores": "attention", "pair_order": "attention",
    },
    "+ ASAP + VisPruner (ASAP Hybrid)": {"plugin": "diffusion"},
    "ASAP (Original)": {},
}  # fmt: skip


def options(experiment: str, *given: str) -> dict[str | None, dict | None]:
    """All options of each row's method by its name in the paper; None: it reduces nothing."""
    rows = spec_of(f"experiment={experiment}", *given).rows
    found = {}
    for row in rows:
        method = build(row.name, row.options)
        found[row.paper] = asdict(method) if isinstance(method, Asap) else None
    assert len(found) == len(rows)
    return found


def test_the_rows_of_the_composition_differ_as_the_paper_names_them() -> None:
    found = options("composition", "points.asap={tau: 2.5, clusters: 7}")
    assert list(found) == [row["method"] for row in paper_table("composition")] == [*COMPOSITION]
    common = asdict(Asap(tau=2.5, clusters=7, miss="force", max_tokens=64))
    for name, differs in COMPOSITION.items():
        assert found[name] == (None if differs is None else common | differs), name


def test_the_anchors_share_everything_but_the_anchor() -> None:
    found = options("anchor_llava_next", "budget=7", "points.asap.tau=2.5")
    anchors = [row["anchor"] for row in paper_table("anchor_llava_next")]
    assert list(found) == [None, *anchors]
    common = asdict(Asap(tau=2.5, miss="force", max_tokens=7))
    for name, anchor in zip(anchors, ("random", "pca", "sink"), strict=True):
        assert found[name] == common | {"anchor": anchor}


def test_one_option_of_a_point_may_be_given_where_rows_refer_to_it() -> None:
    rows = [{"with": {"tau": "${points.asap.tau}"}}, {"with": "${points.all}"}]
    config = OmegaConf.create({"rows": rows})
    refuse_unused_points(config, ["points.asap.tau=2", "points.asap={}", "points.all={}"])
    for given in ("points.quiet.tau=2", "points.as={}"):
        with pytest.raises(RequestError, match=f"{given} is for no row of this run"):
            refuse_unused_points(config, [given])
