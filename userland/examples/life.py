# Conway's game of life in a framebuffer; the world turns on where the power stopped it.
#
#     build/venv/bin/revenant run --near life.img --add userland/examples/life.py:main.py
#
# A glider and an R-pentomino on a torus of 64 by 32 cells, drawn with the cursor at the top left.

import time
from array import array
from framebuf import MONO_HLSB, FrameBuffer

WIDTH, HEIGHT = 64, 32
FIRST = ((1, 0), (2, 1), (0, 2), (1, 2), (2, 2), (31, 15), (32, 15), (30, 16), (31, 16), (31, 17))


class World:
    def __init__(self, cells=FIRST):
        self.age = 0
        self.memory = bytearray(WIDTH // 8 * HEIGHT)
        self.screen = FrameBuffer(self.memory, WIDTH, HEIGHT, MONO_HLSB)
        for x, y in cells:
            self.screen.pixel(x, y, 1)

    def step(self):
        pixel = self.screen.pixel
        counts = array("B", bytes(WIDTH * HEIGHT))
        alive = [(x, y) for y in range(HEIGHT) for x in range(WIDTH) if pixel(x, y)]
        for x, y in alive:
            for dy in (-1, 0, 1):
                row = (y + dy) % HEIGHT * WIDTH
                for dx in (-1, 0, 1):
                    counts[row + (x + dx) % WIDTH] += 1
        before = set(alive)
        self.screen.fill(0)
        for place, count in enumerate(counts):
            if count == 3 or count == 4 and (place % WIDTH, place // WIDTH) in before:
                pixel(place % WIDTH, place // WIDTH, 1)
        self.age += 1

    def draw(self):
        pixel = self.screen.pixel
        print("\x1b[Hgeneration", self.age)
        for y in range(HEIGHT):
            print("".join("#" if pixel(x, y) else "." for x in range(WIDTH)))


def turn():
    world = World()
    while True:
        world.draw()
        world.step()
        time.sleep_ms(100)


turn()
