"""Sums of rows by group, each added in the order of the rows, on every device."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

IN_ORDER = {"cpu"}  # types of devices on which `index_add_` adds in the order of the rows


def grouped_sums(
    values: Float[Tensor, "rows dim"], group: Int[Tensor, "rows"], groups: int
) -> Float[Tensor, "groups dim"]:
    """The sum of each group's rows; rows whose group is `groups` are in none.

    On CUDA `index_add_` adds in any order, so last bits would change from run to run; `index_put_`
    sorts the rows by group first. It adds equal indices one after the other, so every row that is
    in no group has a place of its own there.
    """
    if values.device.type in IN_ORDER:
        sums = values.new_zeros(groups + 1, values.shape[1])
        return sums.index_add_(0, group, values)[:groups]
    places = groups + torch.arange(len(group), device=group.device)
    places = torch.where(group < groups, group, places)
    sums = values.new_zeros(groups + len(group), values.shape[1])
    return sums.index_put_((places,), values, accumulate=True)[:groups]
