"""What CONTRIBUTING.md tells to type exists, and what it packs can be unpacked."""

import re
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path

from repro import profile
from repro.bench import DEFAULTS
from repro.experiments import suites

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(found, comments=True) for found in re.findall(r"python -m repro\.([^`\n]*)", TEXT)]


def test_every_command_exists_and_every_suite() -> None:
    assert {command for command, *_ in COMMANDS} >= {"run", "compare", "bench", "profile"}
    for command, *words in COMMANDS:
        assert find_spec(f"repro.{command}")
        if command == "bench":
            assert {word.partition("=")[0] for word in words} <= set(DEFAULTS)
        if command == "profile":
            assert profile.arms(words)
        if command == "run" and words:
            assert suites.runs([word for word in words if word.startswith("suite=")])


def test_the_files_and_folders_that_it_names_are_there() -> None:
    named = re.findall(r"`((?:repro|experiments|results|tests|\.ci)/[\w./-]*)`", TEXT)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_what_is_packed_in_parts_is_whole_again(tmp_path: Path) -> None:
    lines = [line for block in BLOCKS for line in block.splitlines()]
    pack = [line.replace("55M", "8K") for line in lines if "| split -b 55M" in line]
    (unpack,) = [line for line in lines if line.startswith("cat wheels.tar.*")]
    files = ("wheels/a.whl", "needs.txt", "imagenette/train/one/1.jpg")
    for name, place in zip(files, ("carry", "carry", "real"), strict=True):
        (tmp_path / place / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place / name).write_bytes(name.encode() * 2000)
    (tmp_path / "there").mkdir()
    script = ["set -e", "REPRO_DATA=real", *pack, "mv carry/*.tar.* there", "cd there", unpack]
    subprocess.run(["bash", "-c", "\n".join(script)], check=True, cwd=tmp_path)
    for name, place in zip(files, ("", "", "images"), strict=True):
        assert (tmp_path / "there" / place / name).read_bytes() == name.encode() * 2000
    assert len(list((tmp_path / "there").glob("*.tar.*"))) > 2
