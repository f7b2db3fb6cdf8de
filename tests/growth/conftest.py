"""Draws without a generator of their own are the same in every run and every order of tests."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
