"""`tests.pretend` against faults that are planted here: each shows as it would on a real GPU, or more plainly."""

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import tests.pretend as pretend
from tests.pretend import Gpu, Race


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with pretend.gpu(count=2) as machine:
        yield machine


def there(*sizes: int, device: str = "cuda:0") -> Tensor:
    return torch.ones(sizes, device=device)


def test_a_tensor_says_where_it_lies(gpu: Gpu) -> None:
    x = torch.ones(4).to("cuda:1")
    assert x.device == torch.device("cuda:1")
    assert x.is_cuda
    assert not x.is_cpu
    assert x.get_device() == 1
    assert x[1:].exp().device == x.device  # views and results
    assert torch.zeros_like(x).device == torch.empty(3, device=1).device == torch.tensor([1], device=x.device).device
    assert x.double().device == x.to(memory_format=torch.contiguous_format).device == x.device
    assert x.to("cuda:1") is x
    assert (
        x.cpu().device == x.to(torch.ones(1)).device == torch.zeros_like(x, device="cpu").device == torch.device("cpu")
    )
    assert torch.nn.Linear(2, 2).to("cuda:1").weight.device == x.device


def test_it_is_gone_outside() -> None:
    before = torch.Tensor.to, torch.cuda.is_available, threading.Thread.run
    with pretend.gpu():
        assert torch.cuda.is_available()
    assert (torch.Tensor.to, torch.cuda.is_available, threading.Thread.run) == before
    assert torch.ones(3).device == torch.device("cpu")


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: x + torch.ones(3),
        lambda x: x + there(3, device="cuda:1"),
        lambda x: torch.stack([x, torch.ones(3)]),
        lambda x: torch.nn.functional.linear(x, torch.ones(2, 3)),
        lambda x: torch.nn.Linear(3, 1)(x),
        lambda x: torch.zeros(()).add_(x.sum()),
    ],
)
def test_devices_do_not_mix(gpu: Gpu, refused: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        refused(there(3))
    assert (there(3) * torch.tensor(2.0)).is_cuda  # but for a number


def test_what_lies_on_a_device_is_neither_pinned_nor_an_array(gpu: Gpu) -> None:
    with pytest.raises(RuntimeError, match="cannot pin"):
        there(3).pin_memory()
    with pytest.raises(TypeError, match="numpy"):
        there(3).numpy()
    assert torch.ones(3).pin_memory().is_pinned()
    assert torch.ones(3, pin_memory=True)[1:].is_pinned()
    assert not torch.ones(3).is_pinned()


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x[0].item(),
        lambda x: x.tolist(),
        lambda x: bool((x > 0).all()),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x.masked_select(x > 0),
        lambda x: torch.equal(x, x),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x.copy_(torch.ones(3), non_blocking=True),
        lambda x: torch._foreach_copy_([x], [torch.ones(3)]),
        lambda x: torch.ones(3).to(x.device, non_blocking=True),
        lambda x: torch.ones(3).pin_memory().to(x.device),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: torch.cuda.synchronize(),
        lambda x: torch.cuda.current_stream().synchronize(),
    ],
)
def test_waits_of_the_host_are_seen(gpu: Gpu, waits: Callable[[Tensor], object]) -> None:
    x = there(3)
    assert gpu.waits == []
    waits(x)
    assert len(gpu.waits) == 1
    assert "test_waits_of_the_host_are_seen" in gpu.waits[0]


def test_what_does_not_wait_is_not(gpu: Gpu) -> None:
    x = there(3)
    x += torch.ones(3).pin_memory().to("cuda:0", non_blocking=True)
    x[there(2).long()].sum().fill_(2.0)
    x.to("cpu", non_blocking=True)
    torch.rand(3, device="cuda")
    torch.cuda.Event().record()
    assert gpu.waits == []


def test_a_copy_to_the_host_is_read_after_its_event(gpu: Gpu) -> None:
    x = there(3).requires_grad_()
    early, copied = x.to("cpu", non_blocking=True), torch.cuda.Event()
    assert early.isnan().all()
    copied.record()
    late = x.to("cpu", non_blocking=True)
    copied.synchronize()
    assert early.tolist() == [1, 1, 1]
    assert late.isnan().all()


def test_events_are_of_the_current_device_which_each_thread_has_for_itself(gpu: Gpu) -> None:
    copy, event = there(1, device="cuda:1").to("cpu", non_blocking=True), torch.cuda.Event()
    event.record()  # on the first device
    event.synchronize()
    assert copy.isnan().all()
    torch.cuda.set_device("cuda:1")
    assert torch.ones(1).cuda().device == torch.device("cuda:1")
    seen = list[object]()
    thread = threading.Thread(target=lambda: seen.append((torch.cuda.current_device(), torch.ones(1).cuda().device)))
    thread.start()
    thread.join()
    assert seen == [(0, torch.device("cuda:0"))]


def test_statistics_need_a_device_in_use(gpu: Gpu) -> None:
    with pytest.raises(RuntimeError, match="did you call init"):
        torch.cuda.reset_peak_memory_stats("cuda:1")
    torch.cuda.set_device(1)
    torch.cuda.reset_peak_memory_stats("cuda:1")
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.cuda.set_device("cuda:2")


def test_pinned_memory_does_not_change_while_it_is_copied_from(gpu: Gpu) -> None:
    source = torch.ones(3).pin_memory()
    copy = source.to("cuda", non_blocking=True)
    source.numpy()[0] = 5
    with pytest.raises(Race, match="pinned"):
        copy.tolist()


def on_another_stream(make: Callable[[], Tensor]) -> tuple[torch.cuda.Stream, Tensor]:
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        return aside, make()


def test_a_stream_waits_for_what_another_writes(gpu: Gpu) -> None:
    aside, x = on_another_stream(lambda: torch.ones(3, pin_memory=True).to("cuda", non_blocking=True))
    with pytest.raises(Race, match="before the stream that writes"):
        x.sum()
    torch.cuda.current_stream().wait_event(aside.record_event())
    x.sum()


def test_and_writes_after_another_has_read(gpu: Gpu) -> None:
    x = there(3)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        x.sum()
    with pytest.raises(Race, match="before the stream that reads"):
        x.zero_()


@pytest.mark.parametrize("recorded", [True, False])
def test_memory_is_not_used_again_while_another_stream_reads_it(gpu: Gpu, recorded: bool) -> None:
    aside, x = on_another_stream(lambda: there(3))
    torch.cuda.current_stream().wait_stream(aside)
    x.sum()
    if recorded:
        x.record_stream(torch.cuda.current_stream())
    del x
    with torch.cuda.stream(aside):
        if recorded:
            there(3)
        else:
            with pytest.raises(Race, match="record_stream"):
                there(3)


def test_memory_is_counted_until_its_last_view_is_gone(gpu: Gpu) -> None:
    x = torch.empty(1000, device="cuda")
    y = x[:10]
    del x
    assert torch.cuda.memory_allocated() == 4000
    holder = [y]
    holder.append(holder)  # type: ignore[arg-type]
    del y, holder
    assert torch.cuda.memory_allocated() == 4000
    gc.collect()
    assert torch.cuda.memory_allocated() == 0
    assert torch.cuda.max_memory_allocated() == 4000


def test_memory_ends(gpu: Gpu) -> None:
    gpu.limit = 1000
    with pytest.raises(torch.OutOfMemoryError):
        there(251)
    assert there(250).is_cuda


def test_random_numbers_are_of_the_device(gpu: Gpu) -> None:
    torch.manual_seed(0)
    ours = torch.rand(3)
    first, second = torch.rand(3, device="cuda"), torch.empty(3, device="cuda").uniform_()
    assert first.tolist() == ours.tolist() != second.tolist()  # CPU and GPU differ in truth; here runs can be compared
    state = torch.cuda.get_rng_state()
    third = torch.nn.functional.dropout(there(100))
    torch.cuda.set_rng_state(state)
    assert torch.equal(torch.nn.functional.dropout(there(100)), third)
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device="cuda", generator=torch.Generator())


def test_fused_optimizers_want_one_layout(gpu: Gpu) -> None:
    w = torch.ones(2, 3, 4, 4).cuda().requires_grad_()
    optimizer = torch.optim.SGD([w], lr=1.0, momentum=0.9, fused=True)
    (w * torch.ones(2, 3, 4, 4, device="cuda")).sum().backward()
    optimizer.step()
    w.grad = torch.ones(2, 3, 4, 4, device="cuda").to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="layout"):
        optimizer.step()


def recorded(work: Callable[[], object], **settings: Any) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, **settings):
        work()
    return graph


def test_a_recording_must_not_wait_and_changes_nothing(gpu: Gpu) -> None:
    x, out = there(3), list[Tensor]()
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        recorded(lambda: x[0].item())
    state = torch.cuda.get_rng_state()
    graph = recorded(lambda: out.append(x.mul_(2).add_(torch.rand(3, device="cuda")) + 0))
    assert x.tolist() == [1, 1, 1]
    assert out[0].isnan().all()
    assert torch.equal(torch.cuda.get_rng_state(), state)
    before = [x.tolist()]
    for _ in range(3):
        graph.replay()
        assert torch.equal(out[0], x)
        before.append(x.tolist())
    assert before[3] != [2 * number for number in before[2]]  # drawn anew


def test_another_thread_pins_nothing_meanwhile_unless_the_mode_allows(gpu: Gpu) -> None:
    errors = list[Exception]()

    def pin() -> None:
        try:
            torch.empty(3, pin_memory=True)
        except RuntimeError as error:
            errors.append(error)

    def work() -> None:
        thread = threading.Thread(target=pin)
        thread.start()
        thread.join()

    recorded(work, capture_error_mode="thread_local")
    assert errors == []
    recorded(work)
    assert len(errors) == 1


def test_a_replay_keeps_the_numbers_of_python_and_reads_those_of_the_device(gpu: Gpu) -> None:
    w = there(3).requires_grad_()
    w.grad = there(3)
    optimizer = torch.optim.SGD([w], lr=1.0, fused=True)
    rate, on_host = torch.ones((), device="cuda"), torch.tensor(1.0)
    baked = recorded(optimizer.step)
    optimizer.param_groups[0]["lr"] = rate
    read = recorded(optimizer.step)
    scaled = recorded(lambda: w.detach().mul_(on_host))
    optimizer.param_groups[0]["lr"] = 0.5
    rate.fill_(0.25)
    on_host.fill_(0)
    baked.replay()
    assert w.tolist() == [0, 0, 0]
    read.replay()
    assert w.tolist() == [-0.25] * 3
    scaled.replay()
    assert w.tolist() == [-0.25] * 3


def test_a_replay_needs_the_memory_that_it_recorded(gpu: Gpu) -> None:
    x, y = there(3), there(3)
    graph = recorded(lambda: y.add_(x))
    x = there(3)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        graph.replay()


def test_a_step_of_training_is_that_of_the_cpu(gpu: Gpu) -> None:
    def trained(device: str) -> list[float]:
        torch.manual_seed(0)
        layers = torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(inplace=True), torch.nn.Flatten(), torch.nn.Linear(288, 5)
        network = torch.nn.Sequential(*layers).to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=True)
        images, labels = torch.rand(4, 3, 8, 8).to(device), torch.arange(4, device=device)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
                logits = network(images)
            assert logits.dtype is torch.bfloat16
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).tolist()

    assert trained("cuda") == trained("cpu")
