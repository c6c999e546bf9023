"""Ed25519 keys: their files, which are PEM as openssl makes them, and what a signature says.

Signed are the 32 bytes of a root hash (kernel/store/FORMAT.md, "Trust"). Used by: trust.py, `revenant keygen`,
`publish --sign`. Imported only where a key is used: the library takes longer than all else that a start needs.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from revenant.errors import RevenantError

MAKE_KEY = "make one with `revenant keygen`"


class KeyFileError(RevenantError):
    """A key file cannot be read or made, or is not of an Ed25519 key."""


def public_bytes(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def read_key_file(path: Path) -> bytes:
    """The bytes of a key file; KeyFileError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(path, error.strerror or "cannot be read", MAKE_KEY) from None


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """From a PEM file without a password; KeyFileError."""
    data = read_key_file(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = "it has a password" if isinstance(error, TypeError) else "not a private key in PEM"
        raise KeyFileError(path, reason, MAKE_KEY) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(path, "not an Ed25519 key", MAKE_KEY)
    return key


def load_public_key(path: Path) -> bytes:
    """The 32 bytes of the key in a PEM file; KeyFileError."""
    data = read_key_file(path)
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(path, "not a public key in PEM", "give the file that ends in .pub") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(path, "not an Ed25519 key", MAKE_KEY)
    return public_bytes(key)


def make_key_files(private: Path) -> tuple[Path, bytes]:
    """A new key in `private`, which only its owner may read, and its public half in NAME.pub.

    Returns that file and its 32 bytes. KeyFileError if either file is there or cannot be made.
    """
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    shown = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    public = private.with_name(private.name + ".pub")
    for path, data, mode in ((private, secret, 0o600), (public, shown, 0o644)):
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
                file.write(data)
        except OSError as error:
            raise KeyFileError(path, error.strerror or "cannot be made", "choose another name") from None
    return public, public_bytes(key.public_key())


def is_signed(message: bytes, signature: bytes, public: bytes) -> bool:
    """Whether the holder of the key has signed it."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True
