"""Handling of SIGTERM in a step: report it at once, end worker processes, and let a training save a checkpoint.

On a cluster a terminated step has about a second, since the KFP launcher, its parent, does not wait for it. Between two
training steps would be too late, so a thread reports the termination as soon as the signal arrives.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

END = b"\0"
"""Byte that ends the listening thread; no signal has this number."""


@contextlib.contextmanager
def on_termination(record: Callable[[], None]) -> Iterator[None]:
    """Makes SIGTERM call `record` at once, end the worker processes and raise KeyboardInterrupt while the block runs.

    Code that handles SIGTERM itself, as training does to stop between two steps, still receives it. `record` is called
    even while the main thread is busy in a library that releases the interpreter's lock, such as torch.

    Args:
        record: Called once, from another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # Python writes the signal's number into it before any handler runs
    listener = threading.Thread(target=_listen, args=(reading, record), name="termination", daemon=True)
    handler_before = signal.signal(signal.SIGTERM, _end_workers)
    descriptor_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor_before)
        signal.signal(signal.SIGTERM, handler_before)
        os.write(writing, END)
        listener.join()
        os.close(writing)
        os.close(reading)


def _listen(reading: int, record: Callable[[], None]) -> None:
    recorded = False
    while True:
        received = os.read(reading, 64)
        if signal.SIGTERM in received and not recorded:
            recorded = True
            record()
        if END in received:
            return


def _end_workers(*_: Any) -> None:
    for worker in multiprocessing.active_children():
        worker.kill()  # a forked worker discards a SIGTERM that arrives before Python has started in it
    raise KeyboardInterrupt
