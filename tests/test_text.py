import pytest

from repro.text import console_for_tables, counted, wrapped


def test_one_is_singular() -> None:
    assert [counted(count, "run") for count in (0, 1, 2, 2000)] == ["0 runs", "1 run", "2 runs", "2,000 runs"]
    assert [counted(count, "class", "classes") for count in (1, 2)] == ["1 class", "2 classes"]


def test_lines_break_between_words_and_paths_stay_whole() -> None:
    assert wrapped("warning: see /a/very/long-path", 12, indent=2) == "warning: see\n  /a/very/long-path"


@pytest.mark.parametrize(("terminal", "columns", "width"), [("1", 60, 60), ("0", 60, 140), ("0", 200, 200)])
def test_tables_fit_a_terminal_and_are_wide_elsewhere(
    terminal: str, columns: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("TERM", raising=False)
    assert console_for_tables(140).width == width
