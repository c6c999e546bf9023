# A counter that outlives everything.
#
#     build/venv/bin/revenant run --near counter.img --add userland/examples/counter.py:main.py
#
# Kill QEMU, start it again: no number is missing, and none is counted twice.

import time


def count():
    number = 0
    while True:
        number += 1
        print(number)
        time.sleep_ms(100)


count()
