"""Images read and decoded by several processes: in order, few ahead, and none left behind."""

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

from vilt.utils.raw import Item, Pixels, RawDataError, Skipped, Unread, load

ROWS_A_CALL = 4  # a row takes about as long to decode as a call takes to pass on
CALLS_AHEAD = 3  # for each process; bounds memory however slow the disk or the writing is
PATIENCE = 2.0  # seconds that a stopped run gives rows in work; a dead disk would take for ever


def _begin(lifeline: Connection) -> None:
    """Prepares a worker, so that it does not outlive the main process."""
    threading.Thread(target=_follow, args=[lifeline], daemon=True).start()


def _follow(lifeline: Connection) -> None:
    # Nothing is ever sent: the end comes when the main process closes its side, or is killed.
    with suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)


def load_all(rows: list[Unread | Skipped], pixels: Pixels | None) -> list[Item]:
    """Reads the images of a few rows."""
    return [item for row in rows for item in load(row, pixels)]


class Reader:
    """Turns drop_first rows into items; a context manager that owns the worker processes.

    Args:
        pixels: Makes of each image what is stored in its place; None to store the file's bytes.
        num_workers: Processes that read and decode; 0 does it in this one.
    """

    def __init__(self, pixels: Pixels | None = None, num_workers: int = 0) -> None:
        self.load, self.num_workers = partial(load_all, pixels=pixels), num_workers
        self._ahead: deque[tuple[list[Unread | Skipped], Future]] = deque()

    def __enter__(self) -> "Reader":
        if self.num_workers:
            # Not fork: a worker that held the other end of its own lifeline would never let go.
            context = multiprocessing.get_context("spawn")
            watched, self._lifeline = context.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(self.num_workers, context, _begin, (watched,))
        return self

    def __exit__(self, *_: object) -> None:
        if not self.num_workers:
            return
        try:
            self._pool.shutdown(wait=False, cancel_futures=True)
            # A worker cut off while it hands over a result would leave us waiting for the rest.
            wait([call for _, call in self._ahead if not call.cancel()], timeout=PATIENCE)
        finally:
            self._lifeline.close()

    def items(self, rows: Iterable[Unread | Skipped]) -> Iterator[Item]:
        """Reads the images of rows and yields items in the rows' order.

        Raises:
            RawDataError: If a worker process dies; the message names the images it may be due to.
        """
        if not self.num_workers:
            for row in rows:
                yield from self.load([row])
            return
        try:
            yield from self._in_order(iter(rows))
        except BrokenProcessPool:
            names = (row.name for rows, call in self._ahead if call.exception() for row in rows)
            lost = [name for name in names if name]
            raise RawDataError(
                "a worker process died, of a faulty image or for lack of memory, at one of "
                f"{', '.join(lost[: self.num_workers * ROWS_A_CALL])}: move that file away or "
                "lower --num_workers"
            ) from None

    def _in_order(self, rows: Iterator[Unread | Skipped]) -> Iterator[Item]:
        while some := list(islice(rows, ROWS_A_CALL)):
            self._ahead.append((some, self._submit(some)))
            if len(self._ahead) == CALLS_AHEAD * self.num_workers:
                yield from self._next()
        while self._ahead:
            yield from self._next()

    def _submit(self, rows: list[Unread | Skipped]) -> Future:
        # This starts workers where they are wanted, and they inherit the mask: ctrl-C, which a
        # shell sends to all, is for the main process alone.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(self.load, rows)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _next(self) -> list[Item]:
        items = self._ahead[0][1].result()  # still in the queue: __exit__ waits for it
        self._ahead.popleft()
        return items
