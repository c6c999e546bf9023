"""kernel/lib's SHA-512 and Ed25519, as a library of the host: RFC 8032's vectors, and others' signatures."""

from __future__ import annotations

import ctypes
import hashlib
import random
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from revenant.keys import public_bytes
from store_host import INCLUDES, ROOT, SIGNATURES

GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
VECTORS = {
    # RFC 8032, 7.1: public key, message, signature
    "test 1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    "test 2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "test 3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
    "test sha(abc)": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
        "3dca179c138ac17ad9bef1177331a704",
    ),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernel's sources, compiled for Python."""
    path = tmp_path_factory.mktemp("ed25519") / "ed25519.so"
    words = ["-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *INCLUDES]
    subprocess.run(["gcc", *words, *map(str, SIGNATURES), "-o", str(path)], check=True, cwd=ROOT)
    return ctypes.CDLL(str(path))


def valid(library: ctypes.CDLL, key: bytes, message: bytes, signature: bytes) -> bool:
    """What the kernel says."""
    return bool(library.ed25519_valid(key, signature, message, ctypes.c_size_t(len(message))))


def flipped(data: bytes, bit: int) -> bytes:
    """The same with one bit changed."""
    return (int.from_bytes(data, "little") ^ 1 << bit).to_bytes(len(data), "little")


def test_sha512(library: ctypes.CDLL, rng: random.Random) -> None:
    for size in [*range(260), 1023, 1024, 4096]:
        data, found = rng.randbytes(size), ctypes.create_string_buffer(64)
        library.sha512(found, data, ctypes.c_size_t(size))
        assert found.raw == hashlib.sha512(data).digest(), size


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(library: ctypes.CDLL, name: str) -> None:
    key, message, signature = map(bytes.fromhex, VECTORS[name])
    assert valid(library, key, message, signature)
    assert not valid(library, key, message + b"\0", signature)


def test_signatures_of_others(library: ctypes.CDLL, rng: random.Random) -> None:
    """What OpenSSL signs is valid; with any bit of key, message or signature changed it is not."""
    for _ in range(20):
        private = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
        key, message = public_bytes(private.public_key()), rng.randbytes(32)
        signature = private.sign(message)
        assert valid(library, key, message, signature)
        for bit in rng.sample(range(256), 3):
            assert not valid(library, flipped(key, bit), message, signature)
            assert not valid(library, key, flipped(message, bit), signature)
        for bit in rng.sample(range(512), 3):
            assert not valid(library, key, message, flipped(signature, bit))
        s = int.from_bytes(signature[32:], "little") + GROUP_ORDER
        assert not valid(library, key, message, signature[:32] + s.to_bytes(32, "little"))


def test_nonsense(library: ctypes.CDLL, rng: random.Random) -> None:
    for size in (0, 32, 1024):
        assert not valid(library, rng.randbytes(32), rng.randbytes(size), rng.randbytes(64))
    key = Ed25519PrivateKey.generate()
    longest = bytes(1024)
    assert valid(library, public_bytes(key.public_key()), longest, key.sign(longest))
    assert not valid(library, public_bytes(key.public_key()), bytes(1025), key.sign(bytes(1025)))
