# userland/frozen/aiorevenant.py: revenant's send, receive and wait as coroutines.
#
# Several tasks may wait at the same time; a message goes to one of those who receive. Used by: programs.
import errno

import asyncio.core as core
import revenant


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
