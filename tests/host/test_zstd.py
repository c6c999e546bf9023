"""The kernel's decoder of compressed pages: what zstd makes comes back; what is damaged does no harm."""

from __future__ import annotations

import os
import pathlib
import random
import struct
import subprocess

import pytest
import zstandard
from store_host import compile_program

PAGE_SIZE = 4096
FRAME_COUNT = 600


@pytest.fixture(scope="module")
def unpack(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The compiled program."""
    return compile_program("unpack", tmp_path_factory.mktemp("unpack"))


def unpacked(program: pathlib.Path, frames: list[bytes]) -> list[bytes | None]:
    """The page of each frame; None: it gives none. Sanitizers end the program, and so the test."""
    data = b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program], input=data, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    size = 1 + PAGE_SIZE
    answers = [done.stdout[i : i + size] for i in range(0, len(done.stdout), size)]
    assert len(answers) == len(frames)
    return [answer[1:] if answer[0] else None for answer in answers]


def some_page(rng: random.Random) -> bytes:
    """Of the kinds that programs have: text, pointers, few values, noise with repeats, mostly zeros."""
    words = [rng.randbytes(rng.randrange(1, 24)) for _ in range(rng.randrange(1, 60))]
    kinds = [
        lambda: b"".join(rng.choice(words) for _ in range(PAGE_SIZE)),
        lambda: struct.pack("<512Q", *(0x1000000 + 16 * rng.randrange(4000) for _ in range(512))),
        lambda: bytes(rng.choice(b"\0\0\0\1\xff") for _ in range(PAGE_SIZE)),
        lambda: rng.randbytes(700) * 6,
        lambda: rng.randbytes(100) + bytes(PAGE_SIZE),
    ]
    return rng.choice(kinds)()[:PAGE_SIZE]


def some_frame(rng: random.Random, page: bytes) -> bytes:
    """As any version of zstd's compressor may make it."""
    return zstandard.ZstdCompressor(rng.choice([1, 3, 12, 19]), write_checksum=rng.random() < 0.2).compress(page)


def test_frames_come_back(unpack: pathlib.Path, rng: random.Random) -> None:
    pages = [some_page(rng) for _ in range(100)]
    assert unpacked(unpack, [some_frame(rng, page) for page in pages]) == pages


def test_damaged_frames(unpack: pathlib.Path, rng: random.Random) -> None:
    """Changed bytes, cut ends, other sizes: an answer comes, and only the frame and the page are touched."""
    frames = [b"", b"\x28\xb5\x2f\xfd", rng.randbytes(100), bytes(PAGE_SIZE)]
    for size in (0, 1, PAGE_SIZE - 1, PAGE_SIZE + 1, 1 << 20):
        frames.append(zstandard.ZstdCompressor().compress(bytes(size)))
    while len(frames) < FRAME_COUNT:
        frame = bytearray(some_frame(rng, some_page(rng)))
        for _ in range(rng.randrange(1, 5)):
            frame[rng.randrange(len(frame))] = rng.choice([0, 0xFF, rng.randrange(256)])
        frames.append(bytes(frame[: rng.randrange(len(frame) + 1)] if rng.random() < 0.2 else frame))
    answers = unpacked(unpack, frames)
    assert answers[:9] == [None] * 9
    assert sum(answer is None for answer in answers) > FRAME_COUNT // 2
