"""Activations by another routine at the end of a thread's share: the bits of a row in any batch."""

from collections.abc import Iterator

import pytest
import torch
from timm.layers.activations import QuickGELU
from torch import nn

from asap.core.rows import even_rows, rowwise


@pytest.fixture(params=[1, 2, 3, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("act", [QuickGELU(), nn.SiLU(), nn.GELU(approximate="tanh")])
@pytest.mark.parametrize("width", [72, 128, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_activation_has_the_same_bits_whatever_is_beside_it(
    act: nn.Module, width: int, dtype: torch.dtype, threads: int
) -> None:
    rows = torch.randn(197, width, generator=torch.Generator().manual_seed(0)).mul(3).to(dtype)
    whole = rowwise(act, rows, width)
    for start, stop in ((0, 1), (3, 20), (96, 197), (100, 164)):
        assert torch.equal(rowwise(act, rows[start:stop], width), whole[start:stop])


def test_without_the_rule_some_bits_differ() -> None:
    """Else the rule is not needed any more."""
    rows = torch.randn(2000, 72, generator=torch.Generator().manual_seed(0)).mul(3)
    acts = (QuickGELU(), nn.SiLU(), nn.GELU(approximate="tanh"))
    alone = [torch.cat([act(row) for row in rows.split(1)]) for act in acts]
    assert any(not torch.equal(act(rows), one) for act, one in zip(acts, alone, strict=True))


def test_a_width_of_whole_pieces_needs_no_further_rows() -> None:
    before = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        for rows in (1, 17, 197, 577, 18464):
            assert even_rows(rows, 4096) == even_rows(rows, 384) == rows
    torch.set_num_threads(before)
