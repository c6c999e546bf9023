# userland/frozen/aiorevenant.py: revenant's send, receive, wait and sleep_until as coroutines.
#
# Several tasks may wait at the same time; a message goes to one of those who receive. Used by: programs.
import errno
import io
import time

import asyncio
import asyncio.core as core
import revenant

_STREAM_POLL = const(3)


def _now(call, *args):
    """The call's result in a tuple; None when it would have to wait."""
    try:
        return (call(*args),)
    except OSError as error:
        if error.errno != errno.ETIMEDOUT:
            raise
        return None


# async
def receive():
    """(sender, value) of the next message."""
    while True:
        done = _now(revenant.receive, 0)
        if done:
            return done[0]
        yield core._io_queue.queue_read(revenant.Poll())


# async
def send(process, value):
    """Returns when the message is in the inbox of that process."""
    while not _now(revenant.send, process, value, 0):
        yield core._io_queue.queue_write(revenant.Poll(process))


# async
def wait(process):
    """The exit status of a process below this one."""
    while True:
        done = _now(revenant.wait, process, 0)
        if done:
            return done[0]
        yield core._io_queue.queue_read(revenant.Poll(process))


class _Restart(io.IOBase):
    """Readable when the machine has been started again since this was made."""

    def __init__(self):
        self.count = revenant.stats()["resume_count"]

    def ioctl(self, request, flags):
        if request != _STREAM_POLL:
            return -1
        return flags if revenant.stats()["resume_count"] != self.count else 0


# async
def _restart_wait(restart):
    yield core._io_queue.queue_read(restart)


async def sleep_until(wall_clock):
    """Returns when time.time() is wall_clock; time without power counts."""
    while True:
        restart = _Restart()  # first: one between the next two lines is seen then
        left_ms = int(wall_clock * 1000) - time.time_ns() // 1_000_000
        if left_ms < 0:
            return
        try:
            await asyncio.wait_for_ms(_restart_wait(restart), left_ms + 1)
        except asyncio.TimeoutError:
            pass
