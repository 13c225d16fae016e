"""Heads of images whose lengths the device alone knows, against those of packed images."""

import pytest
import torch
from contract import backbone
from draws import models

from asap.backbones.accepted import adapter_of
from asap.core.packed import PackedTokens
from asap.core.ragged import RaggedTokens


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("key", sorted(models()))
@torch.no_grad()
def test_logits_are_those_of_packed_images(key: str, merged: bool) -> None:
    """Nothing that lies behind an image's last token, or the last image, comes in."""
    adapter = adapter_of(backbone(key, torch.float32))
    prefix, generator = adapter.anatomy.prefix, torch.Generator().manual_seed(0)
    alone = prefix if key.startswith("lvvit") else prefix + 1  # lvvit: the class token may be alone
    for lengths in ((prefix + 5, alone, prefix + 9, prefix + 2), (prefix + 3,) * 4):
        total, equal = sum(lengths), len(set(lengths)) == 1
        rows = torch.randn(total, adapter.anatomy.width, generator=generator)
        sizes = torch.randint(1, 5, (total,), generator=generator).float()
        sizes = sizes if merged else torch.ones(total)
        source = torch.full((4, adapter.anatomy.patches), -1)
        packed = PackedTokens(
            rows, sizes, torch.arange(total), source, lengths, (0, 1, 2, 3), 4, merged
        )
        behind = torch.full((7,), float("nan"))
        offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
        found = adapter.classify_ragged(
            RaggedTokens(
                torch.cat([rows, behind[:, None].expand(-1, rows.shape[1])]),
                torch.cat([sizes, behind]),
                offsets,
                longest=max(lengths) if equal else prefix + 12,
                length=lengths[0] if equal else None,
                merged=merged,
                source=source,
            )
        )
        torch.testing.assert_close(found, adapter.classify(packed), rtol=1e-5, atol=1e-5)
