"""Shared fixtures: where real data and numeric dumps lie, and one thread and one seed for every test."""

from __future__ import annotations

import random
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"

hypothesis.settings.register_profile("data2vec", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("data2vec")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--oracle-dir",
        type=Path,
        default=SHARED / "oracle",
        metavar="DIR",
        help="folder of numeric dumps of the original implementations (default: ../shared/oracle)",
    )


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # tests are tiny: one oversubscribed pool costs more than it gives


def existing(folder: Path, what: str) -> Path:
    """`folder`, or skip the test and say what is missing."""
    if not folder.is_dir():
        pytest.skip(f"{what} not found: no folder {folder}")
    return folder


@pytest.fixture(scope="session")
def oracle_dir(request: pytest.FixtureRequest) -> Path:
    """Folder of the dumps that the original implementations wrote (``--oracle-dir``)."""
    return existing(request.config.getoption("--oracle-dir"), "dumps of the original implementations (--oracle-dir)")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder beside the repository with the dumps and the real data."""
    return existing(SHARED, "shared test material")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real data sets for tests."""
    return existing(SHARED / "data", "real data sets")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same global random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
