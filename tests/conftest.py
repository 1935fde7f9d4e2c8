"""What every test may rely on: fixed seeds, no network, no W&B account, and one cache of made data for all."""

import os
import random
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

if TYPE_CHECKING:
    from repro.config import Config

# Before torch is there: work as small as a test gains nothing by threads that spin, and neighbours would cost it much.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

LOOPBACK = ("127.", "::1", "localhost")
IMAGES_PER_SECOND = pytest.StashKey[list[str]]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked `cuda` where there is no device."""
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hides the user's W&B account and settings; the embedded images are made once a session, subprocesses included."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("NETRC", str(folder / "netrc"))
        for kind in ("CONFIG", "CACHE", "DATA"):
            patch.setenv(f"WANDB_{kind}_DIR", str(folder / "wandb"))
        if "XDG_CACHE_HOME" not in os.environ:
            patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Refuses connections that leave this machine."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
            raise RuntimeError(f"a test wants to connect to {address[0]}: tests use no network")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_locally)
        yield


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def real_images() -> Path:
    """Folder with cifar10/{train,test}/<class>/ and imagenette/{train,val}/<class>/."""
    root = os.environ.get("REPRO_DATA")
    if not root:
        pytest.skip("REPRO_DATA does not name a folder with cifar10/ and imagenette/")
    missing = [name for name in ("cifar10", "imagenette") if not (Path(root) / name).is_dir()]
    if missing:
        pytest.skip(f"REPRO_DATA={root} has no {' and no '.join(missing)}")
    return Path(root)


@pytest.fixture(scope="module", name="one_thread")
def _one_thread() -> Iterator[None]:
    """Keeps torch to one thread, see `tests.tiny`."""
    from tests.tiny import one_thread

    with one_thread():
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few images for `tests.tiny.WORDS`."""
    from tests.tiny import make_image_folder

    return make_image_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A place for records that does not exist yet."""
    return tmp_path / "results"


@pytest.fixture
def benchmark_images(
    benchmark: BenchmarkFixture, request: pytest.FixtureRequest
) -> Callable[[Callable[[], object], int], None]:
    """Times a function that handles so many images a call; the end of the test run lists images/s."""

    def measure(function: Callable[[], object], images: int) -> None:
        benchmark(function)
        if benchmark.stats is not None:  # none under --benchmark-disable
            rate = images / benchmark.stats.stats.median
            benchmark.extra_info["images_per_second"] = rate
            lines = request.config.stash.setdefault(IMAGES_PER_SECOND, [])
            lines.append(f"{request.node.name}: {rate:,.0f} images/s")

    return measure


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints what `benchmark_images` measured."""
    if lines := config.stash.get(IMAGES_PER_SECOND, []):
        terminalreporter.section("images/s, median")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def plain() -> Iterator[dict[tuple[str, str], "Config"]]:
    """Every recipe in every setup; nothing composes them again."""
    from repro.experiments import naming
    from tests.places import plain_configs

    configs = plain_configs()
    flat = {place: naming.settings(config) for place, config in configs.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(naming, "plain_settings", lambda recipe, setup: flat[recipe, setup])
        yield configs
