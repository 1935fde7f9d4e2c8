from pathlib import Path

import pytest

from repro.errors import UserError
from repro.experiments import typed_yaml


@pytest.mark.parametrize(
    "text", ["model: &a {scale: *a}\n", f"model: {'[' * 5000}{']' * 5000}\n"], ids=["circle", "deep"]
)
def test_a_file_nested_without_end_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml: nested too deep: mend it"):
        typed_yaml.load(tmp_path / "mine.yaml")
