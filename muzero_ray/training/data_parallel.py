"""Learners that train one network together: each has a part of every batch, and all make the same update.

Not torch's DistributedDataParallel, which follows one module's forward pass: a loss here calls h, g and f many times,
and one message is to carry its numbers, too.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from datetime import timedelta

import psutil
import torch
import torch.distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from muzero_ray.errors import PeerLost


def listen_at(address: str) -> None:
    """Have gloo use the interface of `address`, not that of the host's name; what the user chose stays."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def serve(host: str, timeout: float) -> tuple[Store, int]:
    """Where the ranks of a group find each other, for rank 0: bound to `host` alone. Returns it and its port."""
    listening = socket.create_server((host, 0))
    port: int = listening.getsockname()[1]
    store = TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout),
        master_listen_fd=listening.detach(),
    )
    return store, port


def find(host: str, port: int, timeout: float) -> Store:
    """What rank 0 serves, for the others. PeerLost if nobody does."""
    with _peers():
        return TCPStore(host, port, is_master=False, timeout=timedelta(seconds=timeout))


class DataParallelGroup:
    """`size` processes, of which this is number `rank`. All call the same methods, in the same order.

    At most one in a process. timeout: seconds that one may let the others wait. Whatever a method waits for, it raises
    PeerLost if a rank is gone or that late.
    """

    def __init__(self, store: Store, rank: int, size: int, *, device: torch.device, timeout: float) -> None:
        """device: of the tensors that are averaged. Returns when all ranks are here."""
        self.rank = rank
        self._size = size
        # Numbers of the host go through gloo in any case: they need not wait for the device, and gloo notices at once
        # that a process has died.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        with _peers():
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout)
            )

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor, in place, by its mean over the ranks; the same bits on all of them. One message."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _peers():
            dist.all_reduce(flat)
        flat /= self._size
        means = flat.split([tensor.numel() for tensor in tensors])  # type: ignore[no-untyped-call]
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def largest(self, *numbers: float) -> list[float]:
        """The maximum of each number over the ranks."""
        packed = torch.tensor(numbers, dtype=torch.float64)
        with _peers():
            dist.all_reduce(packed, dist.ReduceOp.MAX)
        return packed.tolist()

    def check_equal(self, what: str, number: int) -> None:
        """PeerLost if `number` (below 2^53) is not the same on all ranks."""
        largest, minus_smallest = self.largest(number, -number)
        if largest != -minus_smallest:
            raise PeerLost(f"{what} differ between the learner's workers, which should compute the same")


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """PeerLost for what torch raises when another rank is gone or late."""
    try:
        yield
    except RuntimeError as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        reason = line.partition("] ")[2] or line  # without the source line of gloo
        raise PeerLost(f"a worker of the learner is gone or hangs: {reason}") from error
