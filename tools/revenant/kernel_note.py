"""What a kernel file says of itself: the newest versions of the formats that it reads and writes.

Used by: `revenant upgrade` (may it take the image over), `revenant publish` (does it read compressed pages).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from revenant.errors import BuildError

NOTE_NAME = "Revenant"


@dataclass(frozen=True)
class KernelVersions:
    """What a kernel reads and writes: its ELF note says so (kernel/main.c)."""

    format_version: int
    record_version: int


def kernel_versions(path: Path | str, kernel: bytes) -> KernelVersions:
    """From the note of a kernel file; BuildError if it is no kernel of ours."""
    try:
        segments: Any = ELFFile(io.BytesIO(kernel)).iter_segments("PT_NOTE")
        notes = [note for segment in segments for note in segment.iter_notes()]
    except (ELFError, struct.error) as error:
        raise BuildError(path, f"not a kernel: {error}") from None
    for note in notes:
        if note["n_name"] == NOTE_NAME and note["n_descsz"] == 8:
            return KernelVersions(*struct.unpack("<II", note["n_descdata"]))
    raise BuildError(path, "it does not say which versions it reads", "give a kernel that `make build` made")
