"""Fixed-layout structures as dataclasses: each field says its offset and its struct format.

A class lists its C name and its size, so that a test can hold every field against the kernel's DWARF.
Used by: format.py, record.py, ui/layout.py.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Any, ClassVar, Self, dataclass_transform


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a field lies: its offset, its struct format or nested structure, and how many of them."""

    offset: int
    kind: str | type[Structure]
    count: int | None

    @property
    def item_size(self) -> int:
        """Bytes of one element."""
        return struct.calcsize("<" + self.kind) if isinstance(self.kind, str) else self.kind.SIZE

    @property
    def size(self) -> int:
        """Bytes of the whole field."""
        return self.item_size * (1 if self.count is None else self.count)


def at(offset: int, kind: str | type[Structure], default: Any = None, count: int | None = None) -> Any:
    """Declare a field. Without `default` it is zero: 0, zero bytes, or a structure of zeros."""
    place = Place(offset, kind, count)
    if default is None:
        return dataclasses.field(default_factory=lambda: zero_of(place), metadata={"place": place})
    return dataclasses.field(default=default, metadata={"place": place})


def zero_of(place: Place) -> Any:
    """The value that zero bytes stand for."""
    return read(place, bytes(place.offset + place.size), 0)


def read(place: Place, data: bytes | memoryview, base: int) -> Any:
    """Decode one field of the structure that starts at base."""

    def one(offset: int) -> Any:
        if isinstance(place.kind, str):
            return struct.unpack_from("<" + place.kind, data, offset)[0]
        return place.kind.unpack(data, offset)

    start = base + place.offset
    if place.count is None:
        return one(start)
    return tuple(one(start + i * place.item_size) for i in range(place.count))


def write(place: Place, value: Any, data: bytearray) -> None:
    """Encode one field. An array may be given shorter than it is; the rest stays zero."""
    items = (value,) if place.count is None else value
    if len(items) > (place.count or 1):
        raise ValueError(f"{len(items)} elements do not fit in {place.count}")
    for i, item in enumerate(items):
        offset = place.offset + i * place.item_size
        if isinstance(place.kind, str):
            struct.pack_into("<" + place.kind, data, offset, item)
        else:
            data[offset : offset + place.item_size] = item.pack()


@dataclass_transform(frozen_default=True)
class Structure:
    """Base of all of them. Subclasses become frozen dataclasses by themselves."""

    C_NAME: ClassVar[str]
    SIZE: ClassVar[int]
    PLACES: ClassVar[dict[str, Place]]

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True)(cls)
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        cls.PLACES = {field.name: field.metadata["place"] for field in fields}

    @classmethod
    def unpack(cls, data: bytes | memoryview, base: int = 0) -> Self:
        """Decode from data at base; the caller has made sure that SIZE bytes are there."""
        return cls(**{name: read(place, data, base) for name, place in cls.PLACES.items()})

    def pack(self) -> bytes:
        """SIZE bytes; what no field covers is zero."""
        data = bytearray(self.SIZE)
        for name, place in self.PLACES.items():
            write(place, getattr(self, name), data)
        return bytes(data)
