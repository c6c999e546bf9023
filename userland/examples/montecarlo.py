# Pi by chance, for days: a long computation that no power cut sets back.
#
#     build/venv/bin/revenant run --near pi.img --add userland/examples/montecarlo.py:main.py
#
# Each line: points so far, the estimate, and its standard error.

import random
from math import sqrt

LINE_EACH = 20_000


def estimate():
    inside = points = 0
    while True:
        for _ in range(LINE_EACH):
            x, y = random.random(), random.random()
            inside += x * x + y * y < 1.0
        points += LINE_EACH
        share = inside / points
        print(points, inside, "%.6f +- %.6f" % (4 * share, 4 * sqrt(share * (1 - share) / points)))


estimate()
