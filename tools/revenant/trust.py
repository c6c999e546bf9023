"""Whom a machine believes: a pinned root hash, or the Ed25519 key of a publisher.

Trust is a text, as in MachineConfig.trust: 64 hex digits are a root hash, `ed25519:` and 64 hex digits a public key.
Used by: `run --trust`, machine.py and firmware.py for a far store's kernel. The kernel judges by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from revenant.format import Root

KEY_PREFIX = "ed25519:"
HASH_DIGIT_COUNT = 64


def is_hash(text: str) -> bool:
    """64 lower-case hex digits."""
    return len(text) == HASH_DIGIT_COUNT and set(text) <= set("0123456789abcdef")


def parse_trust(text: str) -> str:
    """From what a user gives, which may also be the file of a public key; KeyFileError, ValueError if it is neither."""
    plain = text.lower()
    if is_hash(plain.removeprefix(KEY_PREFIX)):
        return plain
    if text.startswith(KEY_PREFIX) or not ("/" in text or "." in text or Path(text).exists()):
        raise ValueError(f"{text!r} is no root hash (64 hex digits), no {KEY_PREFIX}HEX and no file of a public key")
    from revenant import keys

    return key_name(keys.load_public_key(Path(text)))


def key_name(public: bytes) -> str:
    """A public key as a text of trust."""
    return KEY_PREFIX + public.hex()


def is_trusted(root: Root, trust: str) -> bool:
    """Whether this is the root with the hash, or one that the key's owner has signed."""
    if not trust.startswith(KEY_PREFIX):
        return root.hash.hex() == trust
    from revenant import keys

    return keys.is_signed(root.hash, root.signature, bytes.fromhex(trust.removeprefix(KEY_PREFIX)))


def distrust_reason(roots: Sequence[Root], trust: str) -> str:
    """Why none of a store's roots (newest first) is trusted; an empty string if one is."""
    if any(is_trusted(root, trust) for root in roots):
        return ""
    if not trust.startswith(KEY_PREFIX):
        return f"its root hash is {roots[0].hash.hex()}, not the one to trust"
    return f"its root is not signed by {trust}" if any(roots[0].signature) else "its root is not signed"
