"""Two processes of torch.distributed on this machine."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import distributed


def run_two(
    work: Callable[..., object], *given: object, start: Literal["fork", "spawn"] = "fork"
) -> None:
    """Call ``work(rank, *given)`` in both, with gloo between them.

    Args:
        work: A function that a process finds by its name; what it returns is kept to the end.
        given: Its arguments.
        start: How processes start; forking spares the imports, which take seconds.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context: Any = multiprocessing.get_context(start)
    processes = [context.Process(target=_run, args=(work, r, port, given)) for r in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]


def _run(work: Callable[..., object], rank: int, port: int, given: tuple[object, ...]) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    kept = work(rank, *given)  # till the end, as what follows says of the reducer
    distributed.barrier()
    del kept
    os._exit(0)  # torch 2.13: taking the reducer and gloo's threads apart hangs in one of four runs
