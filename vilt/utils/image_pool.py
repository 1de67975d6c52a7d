"""Read and decode images in worker processes, in order and with bounded prefetching."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection

from clip.utils.errors import UserError
from vilt.utils.raw import Item, PendingRow, Resize, Skip, read_row

ROWS_PER_CALL = 4  # a row takes about as long to decode as a call takes to transfer
CALLS_AHEAD = 3  # per process; bounds memory when the disk or the writer is slow
STOP_TIMEOUT = 2.0  # seconds that a stopped run waits for rows in progress; a dead disk would block it forever

Rows = list[PendingRow | Skip]


def _init_worker(parent_pipe: Connection) -> None:
    threading.Thread(target=_exit_with_parent, args=[parent_pipe], daemon=True).start()


def _exit_with_parent(parent_pipe: Connection) -> None:
    # Nothing is ever sent: this returns when the main process closes its end, or is killed.
    with suppress(EOFError, OSError):
        parent_pipe.recv()
    os._exit(1)


def read_rows(rows: Rows, resize: Resize | None) -> list[Item]:
    """Read the images of a few rows, in a worker process."""
    return [item for row in rows for item in read_row(row, resize)]


class ImagePool:
    """Reads the images of rows in ``num_workers`` processes, or in the main one if 0.

    With ``resize``, its pixels are stored instead of the file's bytes.
    """

    def __init__(self, resize: Resize | None = None, num_workers: int = 0) -> None:
        self.read_rows, self.num_workers = partial(read_rows, resize=resize), num_workers
        self._calls: deque[tuple[Rows, Future]] = deque()

    def __enter__(self) -> "ImagePool":
        if self.num_workers:
            # Not fork: a worker that inherited the parent's end of its own pipe would never exit.
            context = multiprocessing.get_context("spawn")
            worker_end, self._pipe = context.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(self.num_workers, context, _init_worker, (worker_end,))
            # A shell sends Ctrl-C to all processes; the main one decides. Processes inherit what is ignored.
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._pool.submit(int)  # starts the processes
            signal.signal(signal.SIGINT, handler)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.num_workers:
            return
        try:
            self._pool.shutdown(wait=not self._calls, cancel_futures=True)
            # A worker that is killed while it sends a result would leave the pool waiting for the rest.
            wait([call for _, call in self._calls if not call.cancel()], timeout=STOP_TIMEOUT)
        finally:
            self._pipe.close()

    def items(self, rows: Iterable[PendingRow | Skip]) -> Iterator[Item]:
        """Read the images of rows and yield rows, notes and skips in the order of the rows."""
        if not self.num_workers:
            for row in rows:
                yield from self.read_rows([row])
            return
        try:
            rows = iter(rows)
            while (some := list(islice(rows, ROWS_PER_CALL))) or self._calls:
                if some:
                    self._calls.append((some, self._pool.submit(self.read_rows, some)))
                if not some or len(self._calls) == CALLS_AHEAD * self.num_workers:
                    items = self._calls[0][1].result()  # still in the queue: __exit__ waits for it
                    self._calls.popleft()
                    yield from items
        except BrokenProcessPool:
            names = [row.name for rows, call in self._calls if call.exception() for row in rows if row.name]
            raise UserError(
                "a worker process died because of a damaged image or for lack of memory, at one of "
                f"{', '.join(names[: self.num_workers * ROWS_PER_CALL])}; move that file away or lower --num_workers"
            ) from None
