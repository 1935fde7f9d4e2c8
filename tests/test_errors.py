import pytest

from repro.errors import RunFailure, Taken, UserError


@pytest.mark.parametrize("kind", [UserError, RunFailure, Taken])
def test_a_message_is_one_line_whatever_a_name_in_it_holds(kind: type[Exception]) -> None:
    assert str(kind("a\nb\x1b[31m/x/日本\udcff")) == r"a\nb\x1b[31m/x/日本\udcff"
