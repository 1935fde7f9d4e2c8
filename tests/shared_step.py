"""For `tests/test_distributed.py`, started by torchrun: how far a shared training step is from that of one process."""

from contextlib import nullcontext
from pathlib import Path

import torch

import repro.train.step
from repro.distributed import SINGLE, World, from_environment, init, shut_down
from repro.model import build
from repro.train.optimizer import make_optimizer
from repro.train.running_loss import RunningLoss
from repro.train.step import TrainingStep
from tests.tiny import CROP, tiny_config

CPU = torch.device("cpu")
ROUNDING = 1e-7
"""Of the largest weight, and of the loss; the loss is taken in float32."""


def trained(world: World, micro_batch: int | None) -> tuple[list[torch.Tensor], float]:
    """Parameters and mean loss after six steps in float64."""
    config = tiny_config()
    config.train.micro_batch = micro_batch
    torch.manual_seed(0)
    network = build(config, 4).double().train()
    step = TrainingStep(config, network, make_optimizer(network, config.optimizer), CPU, world)
    running = RunningLoss.on(CPU)
    for count in (16, 16, 16, 16, 5, 1):
        images, labels = 60 * torch.randn(count, 3, CROP, CROP, dtype=torch.float64), torch.randint(4, (count,))
        own = world.shard(count)
        step(images[own], labels[own], running, count)
    return [parameter.detach() for parameter in network.parameters()], running.snapshot(world).means()[0]


def main() -> None:
    """A line for whole batches and one for parts of four: largest difference of a weight, and of the loss, relative.

    A last one names the threads of the group that are still there once it is left: each may abort the process at exit.
    """
    world = from_environment()
    repro.train.step.arithmetic = lambda *_: nullcontext()  # type: ignore[attr-defined]
    init(world, CPU)
    for micro_batch in (None, 4):
        (alone, loss), (shared, shared_loss) = trained(SINGLE, micro_batch), trained(world, micro_batch)
        pairs = zip(alone, shared, strict=True)
        weights = max(((a - b).abs().max() / a.abs().max()).item() for a, b in pairs)
        if world.is_main:
            print(weights, abs(loss - shared_loss) / loss)
    shut_down()
    if world.is_main:
        threads = Path("/proc/self/task").glob("*/comm")  # none where the system has no such folder
        print("left:", *sorted(name for thread in threads if "gloo" in (name := thread.read_text().strip())))


if __name__ == "__main__":
    main()
