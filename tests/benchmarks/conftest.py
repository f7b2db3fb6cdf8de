"""Images that comparisons of whole runs are tried on."""

from pathlib import Path

import pytest
import torch


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of made-up images, as the comparisons take them."""
    generator = torch.Generator().manual_seed(0)
    stored = {
        name: (
            torch.randint(256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8),
            torch.arange(count) % 3,
        )
        for name, count in (("train", 150), ("test", 20))
    }
    torch.save(stored, tmp_path / "images.pt")
    return tmp_path / "images.pt"
