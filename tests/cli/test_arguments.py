"""Arguments: what tyro parses, and how its complaints and ours reach the user."""

from dataclasses import dataclass, field

import pytest

from data2vec.cli.arguments import parse
from data2vec.errors import UserError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise UserError(f"inner.rate={self.rate} must not be negative")


@dataclass
class Arguments:
    """What the command does.

    Attributes:
        name: called so.
    """

    name: str
    inner: Inner = field(default_factory=Inner)


def test_values_reach_nested_fields() -> None:
    assert parse(Arguments, ["--name", "x", "--inner.rate", "2"], prog="p") == Arguments("x", Inner(2.0))


def test_a_value_out_of_range_is_the_config_s_own_error() -> None:
    with pytest.raises(UserError, match=r"^inner\.rate=-1\.0 must not be negative$"):
        parse(Arguments, ["--name", "x", "--inner.rate", "-1"], prog="p")


@pytest.mark.parametrize(
    "argv", [[], ["--name", "x", "--inner.rat", "1"], ["--name", "x", "--inner.rate", "y"]], ids=str
)
def test_what_does_not_parse_is_explained_with_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(Arguments, argv, prog="p")
    assert stop.value.code == 2
    assert "--" in capsys.readouterr().err


def test_help_is_on_stdout_and_reads_the_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(Arguments, ["--help"], prog="p")
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "called so" in said
    assert "usage: p" in said
