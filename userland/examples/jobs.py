# A job queue: one process hands out numbers, three others factorise them; each result comes exactly once.
#
#     build/venv/bin/revenant run --near jobs.img --add userland/examples/jobs.py:main.py
#
# Cut the power as often as you like: no job is lost, none is done twice, and no worker begins its job again.

import asyncio

import aiorevenant
import revenant

WORKER_COUNT = 3
FIRST = 1_000_000_000

WORKER = """
import revenant

def factors(number):
    found, divisor = [], 2
    while divisor * divisor <= number:
        if number % divisor:
            divisor += 1
        else:
            found.append(divisor)
            number //= divisor
    return found + [number]

while True:
    boss, (job, number) = revenant.receive()
    revenant.send(boss, (job, number, factors(number)))
"""


def orders():
    """The queue: whoever asks gets the next job."""
    job = 0
    while True:
        job += 1
        yield job, FIRST + job


async def employ(worker, queue, answered):
    """Give a worker one job after the other."""
    for order in queue:
        await aiorevenant.send(worker, order)
        await answered.wait()
        answered.clear()


async def collect(answered):
    """Tell the results, and let those who are done have the next job."""
    while True:
        worker, (job, number, factors) = await aiorevenant.receive()
        print("job %d by process %d: %d = %s" % (job, worker, number, " * ".join(str(factor) for factor in factors)))
        answered[worker].set()


async def main():
    queue = orders()
    answered = {revenant.spawn(WORKER, "worker"): asyncio.Event() for _ in range(WORKER_COUNT)}
    await asyncio.gather(collect(answered), *(employ(worker, queue, event) for worker, event in answered.items()))


asyncio.run(main())
