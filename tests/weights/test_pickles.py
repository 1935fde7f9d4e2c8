"""Files that mean harm: each ends in an error, at once, and in little memory."""

import io
import pickle
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from repro import weights
from repro.errors import UserError
from repro.weights import cuda_convnet, pickles, torch_files
from tests.weights.nets import CLASSES, random_network, small_config
from tests.weights.python2 import Global, Reduced, dumps

PROTO, STOP = b"\x80\x02", b"."
GIGABYTES_2 = 2**31 - 1
BOMBS = {
    "a tuple nested two million deep": PROTO + b")" + b"\x85" * 2_000_000 + STOP,
    "the same as a key": PROTO + b"}" + b")" + b"\x85" * 2_000_000 + b"Ns" + STOP,
    "a tuple that doubles": PROTO + b"})" + b"2\x86" * 60 + b"Ns" + STOP,
    "a tuple that doubles by its memo": PROTO + b"})" + b"q\x00h\x00\x86" * 60 + b"Ns" + STOP,
    "a frozen set nested deep": b"\x80\x04" + b"(" * 3000 + b"\x91" * 3000 + STOP,
    "a memo of 2^28 places": PROTO + b"Nr\xff\xff\xff\x0f" + STOP,
    "a memo of 2^31 places": PROTO + b"Nr\xff\xff\xff\x7f" + STOP,
    "a number of 2 GB": PROTO + b"\x8b" + struct.pack("<i", GIGABYTES_2) + b"1.",
    "a string of 2 GB": PROTO + b"T" + struct.pack("<i", GIGABYTES_2) + b"1.",
    "a text of 2 GB": b"\x80\x04\x8d" + struct.pack("<Q", GIGABYTES_2) + b"1.",
    "bytes of 2 GB": b"\x80\x04\x8e" + struct.pack("<Q", GIGABYTES_2) + b"1.",
    "a bytearray of 2 GB": b"\x80\x05\x96" + struct.pack("<Q", GIGABYTES_2) + b"1.",
    "a frame of 2 GB": b"\x80\x04\x95" + struct.pack("<Q", GIGABYTES_2) + b"N.",
    "bytes of 2^63": b"\x80\x05\x96" + struct.pack("<Q", 2**63) + b"1.",
    "marks without an end": PROTO + b"(" * 1000,
    "a code of the extension registry": PROTO + b"\x82\x01.",
    "a buffer from outside": b"\x80\x05\x97.",
    "an id where none can be": PROTO + b"NQ.",
    "an end without a value": PROTO + STOP,
    "a memo that was never filled": PROTO + b"h\x07.",
}

NEST = 200_000
HARMLESS = {
    "a list nested deep": PROTO + b"]" * NEST + b"a" * (NEST - 1) + STOP,
    "a dict nested deep": PROTO + (b"}U\x40" + b"a" * 64) * NEST + b"}" + b"s" * NEST + STOP,
    "a list that doubles": PROTO + b"]" + b"q\x000](h\x00h\x00e" * 60 + STOP,
    "a long name": PROTO + b"}X" + struct.pack("<I", 2**22) + b"." * 2**22 + b"]s" + STOP,
}
"""Values that are only in the way where someone writes them out, compares them, or follows them down."""
DOUBLING = b"]" + b"q\x000](h\x00h\x00e" * 60


def refuse(name: str, _: bytes) -> Exception:
    return UserError(f"asks for {name}")


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_goes_off_as_an_error(name: str) -> None:
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises((pickle.UnpicklingError, ValueError, LookupError, EOFError, TypeError, OverflowError)):
            pickles.load(io.BytesIO(BOMBS[name]), {}, refuse)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 5


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_deep_or_long_is_followed_by_nobody(name: str, tmp_path: Path) -> None:
    start = b"\x80\x02" + torch_files.MAGIC + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    keys = pickle.dumps([], 2)
    (tmp_path / "x.pth").write_bytes(start + HARMLESS[name] + keys)
    clock = time.process_time()
    with pytest.raises(UserError, match=r"x\.pth: no state dict of AlexNet"):
        weights.read(tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes(HARMLESS[name])
    with pytest.raises(UserError, match=r"x\.pth: a pickle, but not a checkpoint of cuda-convnet"):
        weights.read(tmp_path / "x.pth")
    assert time.process_time() - clock < 20


@pytest.mark.parametrize(
    "content",
    [
        b"(U\x07storagectorch\nFloatStorage\n" + DOUBLING + b"U\x03cpuK\x01tQ",  # the key of a storage
        b"ctorch._utils\n_rebuild_tensor\n(N" + DOUBLING + b"))tR",  # a shape
        b"cnumpy\ndtype\n(" + DOUBLING + b"tR(K\x03" + DOUBLING + b"tb",  # the type of an array
    ],
)
def test_nobody_writes_such_values_out(content: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("x/data.pkl", PROTO + content + STOP)
    start = b"\x80\x02" + torch_files.MAGIC + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    (tmp_path / "stream").write_bytes(start + PROTO + content + STOP + pickle.dumps([], 2))
    (tmp_path / "convnet").write_bytes(PROTO + content + STOP)
    clock = time.process_time()
    for name in ("zip", "stream", "convnet"):
        with pytest.raises(UserError):
            weights.read(tmp_path / name)
    assert time.process_time() - clock < 20


def test_a_tuple_in_all_but_its_opcode_is_no_key(tmp_path: Path) -> None:
    """What a call makes of a list could be as deep as one likes; here in a thread with a stack of 256 KB."""
    nest = b"ctorch\nSize\n(]" * 10_000 + b"N" + b"atR" * 10_000
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", PROTO + b"}" + nest + b"Ns" + STOP)
    before = threading.stack_size(2**18)
    try:
        with ThreadPoolExecutor(1) as pool, pytest.raises(UserError, match="no state dict of AlexNet"):
            pool.submit(weights.read, tmp_path / "x.pth").result()
    finally:
        threading.stack_size(before)


def test_too_many_opcodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MOST_OPCODES", 1000)
    with pytest.raises(pickle.UnpicklingError, match="too many opcodes"):
        pickles.load(io.BytesIO(PROTO + b"]" * 1001 + STOP), {}, refuse)


def test_a_file_of_each_kind_ends_in_one_line(tmp_path: Path) -> None:
    """As a file of torch, where a number and two more pickles come first, and as one of cuda-convnet."""
    for content in BOMBS.values():
        for start in (b"", b"\x80\x02" + torch_files.MAGIC + pickle.dumps(1001, 2) + pickle.dumps({}, 2)):
            path = tmp_path / "x.pth"
            path.write_bytes(start + content)
            with pytest.raises(UserError, match=r"x\.pth: looks like .* but is cut short or damaged") as error:
                weights.read(path)
            assert "\n" not in str(error.value)


def test_the_process_survives_with_little_memory(tmp_path: Path) -> None:
    """With 200 MB more than an interpreter takes, in a process of its own, which a bomb would end."""
    script = (
        "import resource, sys; from pathlib import Path; from repro import weights\n"
        "from repro.errors import UserError\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))\n"
        "for path in sys.argv[1:]:\n"
        "    try: weights.read(Path(path))\n"
        "    except UserError as error: print(error)\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs Linux")
    paths = []
    for number, content in enumerate(BOMBS.values()):
        paths.append(tmp_path / f"{number}.pkl")
        paths[-1].write_bytes(content)
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(paths)


def test_what_weights_need_is_read() -> None:
    value = {"a": [1, 2.5, "x", None, True, (1, (2, 3))], "b": {3: "y"}, "long": 2**70, "names": ("n",) * 20_000}
    value["self"] = [value["a"], value["a"]]
    for protocol in range(6):
        assert pickles.load(io.BytesIO(pickle.dumps(value, protocol)), {}, refuse) == value


def test_several_pickles_follow_each_other() -> None:
    stream = io.BytesIO(b"".join(pickle.dumps(number, 4) for number in (1, 2)) + b"rest")
    assert [pickles.load(stream, {}, refuse) for _ in range(2)] == [1, 2]
    assert stream.read() == b"rest"


# ---- our own functions -----------------------------------------------------------------------------------------------

TABLES = {"torch": torch_files._GLOBALS, "cuda-convnet": cuda_convnet._GLOBALS}


def attributes(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in dir(value) if not name.startswith("__dict")}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("slots", [True, False])
def test_build_alters_nothing_of_ours(table: str, slots: bool) -> None:
    """BUILD sets attributes, of functions and classes as well; the next file would then be read with these."""
    state: Any = {"__init__": 1, "__call__": 2, "__defaults__": (3,), "_function": 4, "dtype": 5, "code": 6}
    for module, name in TABLES[table]:
        target = TABLES[table][module, name]
        before = attributes(target)
        content = f"c{module}\n{name}\n".encode()
        content = PROTO + content + dumps((None, state) if slots else state)[2:-1] + b"b."
        with pytest.raises((pickle.UnpicklingError, AttributeError, TypeError, UserError)):
            pickles.load(io.BytesIO(content), TABLES[table], refuse)
        assert attributes(target) == before


@pytest.mark.parametrize("table", TABLES)
def test_what_a_pickle_may_call_cannot_be_altered(table: str) -> None:
    """Each is a class with a state of its own, or sealed."""
    for target in TABLES[table].values():
        kind = target if isinstance(target, type) else type(target)
        assert "__setstate__" in dir(kind), target
        assert kind.__module__.startswith("repro.weights")


def test_an_objects_attributes_are_its_own() -> None:
    """`object.__reduce_ex__`, `__class__` and their like are not reached by a dotted name."""
    for name in ("OrderedDict.__init__", "OrderedDict.fromkeys"):
        content = b"\x80\x04\x8c\x0bcollections\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
        with pytest.raises(UserError, match=f"asks for collections.{name}"):
            pickles.load(io.BytesIO(content), torch_files._GLOBALS, refuse)


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evil", ["\x1b[2J\x1b]0;owned\x07", "[red]x[/red]\r\n", "x" * 5000, "\u202egnp.exe"])
def test_names_reach_the_terminal_as_text(evil: str, tmp_path: Path) -> None:
    config = small_config("torchvision")
    state = random_network(config).state_dict()
    torch.save({**state, f"features.{evil}.weight": torch.ones(1)}, tmp_path / "known.pth")
    torch.save({evil: torch.ones(1)}, tmp_path / "unknown.pth")
    (tmp_path / "global.pkl").write_bytes(dumps({"model_state": Reduced(Global("os", evil.split("\r")[0]), ())}))
    for name in ("known.pth", "unknown.pth", "global.pkl"):
        with pytest.raises(UserError) as error:
            weights.check(tmp_path / name, config, lambda: CLASSES)
        line = str(error.value).removeprefix(str(tmp_path))
        assert line.isprintable()
        assert len(line) < 600
