"""The methods of a run's rows, and whether they fit its backbone."""

from collections.abc import Sequence

from asap.data.base import DataSet
from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.measure.in_memory import Backbone
from asap.methods import Method
from asap.methods.language.base import Pruner
from asap.methods.registry import build_pruner
from asap.report.paper import LLAVA15, NEXT, TABLES_OF
from asap.spec.run_spec import MethodSpec, RunSpec


def pruner_of(row: MethodSpec) -> Pruner | None:
    """The method of a row's language stage, with its options; None if it has none."""
    return None if row.pruner is None else build_pruner(row.pruner.name, row.pruner.options)


def refuse_unfit(
    spec: RunSpec, backbone: Backbone, methods: Sequence[Method], pruners: Sequence[Pruner | None]
) -> None:
    """RequestError if a method of a row does not fit the backbone, or the backbone is another LLaVA
    than that of the paper's table.

    methods, pruners: those of the spec's rows, in their order.
    """
    _refuse_other_llava(spec, backbone)
    for row, method, pruner in zip(spec.rows, methods, pruners, strict=True):
        try:
            model = ReducedViT(backbone.loaded.model, method)
            if pruner is not None and backbone.llava is not None:
                layers = len(backbone.llava.language.layers)
                pruner.check(layers, model.adapter.anatomy.patches * backbone.llava.crops)
        except ValueError as error:
            name = spec.backbone.name
            raise RequestError(f"{row.label} on backbone {name!r}: {error}") from None


def _refuse_other_llava(spec: RunSpec, backbone: Backbone) -> None:
    """A row's budget is of a picture of LLaVA-1.5, and of each image of one of LLaVA-NeXT."""
    table, llava = spec.paper_table, backbone.llava
    if llava is None or llava.file.origin == "bundled" or table not in TABLES_OF:
        return
    found = NEXT if llava.crops > 1 else LLAVA15
    if found != (wanted := TABLES_OF[table]):
        own = next(name for name, model in TABLES_OF.items() if model == found)
        raise RequestError(
            f"paper_table={table} and its rows are of {wanted}, and model= is a {found}: give a "
            f"{wanted}, or use experiment={own} (for rows of your own, paper_table={own})"
        )


def refuse_unmarked(spec: RunSpec, pruners: Sequence[Pruner | None], data: DataSet) -> None:
    """RequestError if a row needs to know where objects are and the data do not say."""
    for row, pruner in zip(spec.rows, pruners, strict=True):
        if pruner is not None and pruner.needs_objects and not data.has_masks:
            raise RequestError(
                f"{row.label} needs masks of objects, and data={data.name} has none: leave the row "
                "out, or use data=digits_qa"
            )
