"""The Python variables of a saved process: MicroPython's objects, read by the DWARF of the port that made them.

Promise: memory of any kind gives an answer, in bounded time: for each variable READ_SIZE_MAX bytes are read and
OBJECT_COUNT_MAX objects looked at (one that has more says so), and what makes no sense is shown as `?`.
The object representation is MICROPY_OBJ_REPR_A (py/mpconfig.h). Used by: inspection.py, travel.py's diff.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

OBJECT_COUNT_MAX = 1 << 16
TEXT_SIZE_MAX = 4096
READ_SIZE_MAX = 1 << 26
SHOWN_SIZE_MAX = 60
SHOWN_ITEM_COUNT = 6
SHOWN_DEPTH = 3
QSTR_POOL_COUNT_MAX = 256

# One function of each source file whose compilation unit has the structures that are needed here.
ANCHORS = (
    "gc_init", "mp_obj_exception_get_traceback", "mp_obj_set_store", "mp_obj_new_float", "mp_obj_int_get_checked",
    "mp_obj_new_bytearray", "mp_obj_fun_get_name", "mp_obj_new_closure", "mp_obj_new_bound_meth", "mp_obj_new_cell",
)  # fmt: skip
GC_BLOCK_SIZE = 32
GC_HEAD, GC_TAIL, GC_MARKED = 1, 2, 3
PRELUDE_SIZE_MAX, QSTR_SIZE = 64, 2
VARIABLE_NUMBER = re.compile(rb"[\x80-\xff]*[\0-\x7f]")
"""Its last byte has no top bit."""
IMMEDIATES = {0: "None", 1: "False", 3: "True"}

Read = Callable[[int, int], bytes]
"""Bytes of the process' memory, zeros where there is none."""


@dataclass(frozen=True)
class Member:
    """Where a member lies: bytes, and bits within them (0: all)."""

    offset: int
    size: int
    bit: int = 0
    bit_count: int = 0


class Layouts:
    """Structures, symbols and the range of one ELF file."""

    def __init__(self, path: Path, anchors: tuple[str, ...]) -> None:
        elf: Any = ELFFile(io.BytesIO(path.read_bytes()))
        table = elf.get_section_by_name(".symtab")
        self.address = {str(symbol.name): int(symbol["st_value"]) for symbol in table.iter_symbols()}
        self.symbol = {value: name for name, value in self.address.items() if name.startswith("mp_type_")}
        self.end = max(int(s["p_vaddr"]) + int(s["p_memsz"]) for s in elf.iter_segments("PT_LOAD"))
        dwarf = elf.get_dwarf_info()
        ranges = dwarf.get_aranges()
        self.structures: dict[str, dict[str, Member]] = {}
        for name in anchors:
            unit = dwarf.get_CU_at(ranges.cu_offset_at_addr(self.address[name]))
            for die in unit.get_top_DIE().iter_children():
                if die.tag == "DW_TAG_structure_type" and "DW_AT_name" in die.attributes:
                    key = die.attributes["DW_AT_name"].value.decode().strip("_")
                    self.structures.setdefault(key, dict(members(die)))

    def member(self, path: str) -> Member:
        """`structure.member`; KeyError if this port has no such thing."""
        structure, _, name = path.partition(".")
        return self.structures[structure][name]


def type_of(die: Any) -> Any:
    """The type of a member, typedefs and qualifiers taken off."""
    while True:
        die = die.get_DIE_from_attribute("DW_AT_type")
        if die.tag not in ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type"):
            return die


def members(die: Any) -> Iterator[tuple[str, Member]]:
    """Name and place of each member of a structure."""
    for child in die.iter_children():
        if child.tag != "DW_TAG_member" or "DW_AT_name" not in child.attributes:
            continue
        attributes = child.attributes
        name = attributes["DW_AT_name"].value.decode()
        size = int(type_of(child).attributes["DW_AT_byte_size"].value) if sized(type_of(child)) else 8
        if "DW_AT_bit_size" in attributes:
            bit = int(attributes["DW_AT_data_bit_offset"].value)
            yield name, Member(bit // 64 * 8, 8, bit % 64, int(attributes["DW_AT_bit_size"].value))
        else:
            yield name, Member(int(attributes["DW_AT_data_member_location"].value), size)


def sized(die: Any) -> bool:
    """Whether a type says how large it is; arrays and pointers need not."""
    return "DW_AT_byte_size" in die.attributes


@cache
def layouts_of(path: Path, anchors: tuple[str, ...] = ANCHORS) -> Layouts:
    """Read once: with all anchors it takes a second or two."""
    return Layouts(path, anchors)


@dataclass(frozen=True)
class Value:
    """One object: its type's name, what it says by itself, what it refers to, and heap blocks that are its own."""

    kind: str
    atom: str | None = None
    refs: list[int] = field(default_factory=list)
    owned: list[int] = field(default_factory=list)
    raw: bytes = b""


@dataclass(frozen=True)
class Variable:
    """A global: its value shortened, the bytes that it keeps in the heap, and a hash of all that was read of it."""

    name: str
    type: str
    value: str
    size: int
    digest: bytes
    complete: bool


class Heap:
    """The interpreter of one process in one generation."""

    def __init__(self, layouts: Layouts, read: Read, read_size_max: int = READ_SIZE_MAX) -> None:
        self.layouts = layouts
        self._read = read
        self.read_size_max = self.read_size_left = read_size_max
        self.complete = True
        self.state = layouts.address["mp_state_ctx"]
        self._areas = list(self._heap_areas())
        self._pools = list(self._qstr_pools())

    # --- memory ---

    def read(self, address: int, size: int) -> bytes:
        """Bytes of memory; none where no program has any, or when enough has been read for one variable."""
        if address <= 0 or size < 0 or address + size >= 1 << 47:
            return b""
        if size > self.read_size_left:
            self.complete = False
            return b""
        self.read_size_left -= size
        return self._read(address, size)

    def number(self, address: int, size: int = 8) -> int:
        """An unsigned number; 0 where there is none."""
        return int.from_bytes(self.read(address, size), "little")

    def get(self, address: int, path: str) -> int:
        """A member of a structure at an address."""
        member = self.layouts.member(path)
        value = self.number(address + member.offset, min(member.size, 8))
        return value >> member.bit & (1 << member.bit_count) - 1 if member.bit_count else value

    def at(self, address: int, *paths: str) -> int:
        """The address of a member of members."""
        return address + sum(self.layouts.member(path).offset for path in paths)

    def array(self, address: int, count: int) -> list[int]:
        """So many 64-bit words; none where that cannot be."""
        data = self.read(address, 8 * count)
        return list(struct.unpack(f"<{count}Q", data)) if data else []

    # --- the heap's blocks ---

    def _heap_areas(self) -> Iterator[tuple[int, int, int, int]]:
        """(start and end of a pool, its table, the table's size)."""
        area = self.at(self.state, "mp_state_ctx_t.mem", "mp_state_mem_t.area")
        for _ in range(64):
            yield (
                self.get(area, "mp_state_mem_area_t.gc_pool_start"),
                self.get(area, "mp_state_mem_area_t.gc_pool_end"),
                self.get(area, "mp_state_mem_area_t.gc_alloc_table_start"),
                self.get(area, "mp_state_mem_area_t.gc_alloc_table_byte_len"),
            )
            has_next = "next" in self.layouts.structures["mp_state_mem_area_t"]
            area = self.get(area, "mp_state_mem_area_t.next") if has_next else 0
            if not area:
                return

    def block_size(self, address: int) -> int:
        """Bytes of the heap block that begins at an address, or 0: py/gc.c has two bits for each GC_BLOCK_SIZE."""
        for start, end, table, table_size in self._areas:
            if not start <= address < end:
                continue
            first, count = (address - start) // GC_BLOCK_SIZE, 1
            if self._block_kind(table, first) not in (GC_HEAD, GC_MARKED):
                return 0
            while first + count < table_size * 4 and self._block_kind(table, first + count) == GC_TAIL:
                count += 1
            return count * GC_BLOCK_SIZE
        return 0

    def _block_kind(self, table: int, block: int) -> int:
        return self.number(table + block // 4, 1) >> block % 4 * 2 & 3

    # --- names ---

    def _qstr_pools(self) -> Iterator[tuple[int, int, int]]:
        """(pool, first number, count), the newest first."""
        pool = self.get(self.at(self.state, "mp_state_ctx_t.vm"), "mp_state_vm_t.last_pool")
        for _ in range(QSTR_POOL_COUNT_MAX):
            if not pool:
                return
            yield pool, self.get(pool, "qstr_pool_t.total_prev_len"), self.get(pool, "qstr_pool_t.len")
            pool = self.get(pool, "qstr_pool_t.prev")

    def qstr(self, number: int) -> str:
        """An interned string."""
        for pool, first, count in self._pools:
            if first <= number < first + count:
                index = number - first
                length = self.number(self.get(pool, "qstr_pool_t.lengths") + index, 1)
                text = self.number(self.at(pool, "qstr_pool_t.qstrs") + 8 * index)
                return self.read(text, length).decode(errors="replace")
        return f"?qstr {number}"

    # --- objects ---

    def value(self, obj: int) -> Value:
        """One object, whatever it is."""
        if obj & 1:
            return Value("int", str((obj ^ 1 << 63) - (1 << 63) >> 1))
        if obj & 7 == 2:
            return Value("str", repr(self.qstr(obj >> 3)))
        if obj & 7 == 6:
            return Value("bool" if obj >> 3 else "NoneType", IMMEDIATES.get(obj >> 3, "?"))
        kind = self.get(obj, "mp_obj_base_t.type")
        symbol = self.layouts.symbol.get(kind, "")
        decode = getattr(self, "_" + symbol.removeprefix("mp_type_"), None) if symbol else None
        if decode is not None:
            value: Value = decode(obj)
            return value
        if not 0 < kind < 1 << 47:
            return Value("?", "?")
        name = self.type_name(kind)
        if kind >= self.layouts.end:  # a class of the program
            owned = [self.get(self.at(obj, "mp_obj_instance_t.members"), "mp_map_t.table")]
            return Value(name, None, self.map_items(self.at(obj, "mp_obj_instance_t.members")), owned)
        size = self.block_size(obj)
        return Value(name, None, raw=self.read(obj, size) if size else b"%d" % obj)

    def type_name(self, kind: int) -> str:
        """Of a type at an address."""
        return shortened(printable(self.qstr(self.get(kind, "mp_obj_type_t.name")))) or "?"

    def map_items(self, address: int) -> list[int]:
        """Keys and values in turn."""
        words = self.array(self.get(address, "mp_map_t.table"), 2 * self.get(address, "mp_map_t.alloc"))
        pairs = zip(words[::2], words[1::2], strict=True)
        return [word for key, value in pairs if key not in (0, 4) and value for word in (key, value)]

    def _dict(self, obj: int) -> Value:
        table = self.get(self.at(obj, "mp_obj_dict_t.map"), "mp_map_t.table")
        return Value("dict", None, self.map_items(self.at(obj, "mp_obj_dict_t.map")), [table])

    def _ordereddict(self, obj: int) -> Value:
        value = self._dict(obj)
        return Value("OrderedDict", None, value.refs, value.owned)

    def _list(self, obj: int) -> Value:
        items = self.get(obj, "mp_obj_list_t.items")
        return Value("list", None, self.array(items, self.get(obj, "mp_obj_list_t.len")), [items])

    def _tuple(self, obj: int) -> Value:
        items = self.at(obj, "mp_obj_tuple_t.items")
        return Value("tuple", None, self.array(items, self.get(obj, "mp_obj_tuple_t.len")))

    def _set(self, obj: int) -> Value:
        place = self.at(obj, "mp_obj_set_t.set")
        table = self.get(place, "mp_set_t.table")
        words = self.array(table, self.get(place, "mp_set_t.alloc"))
        return Value("set", None, sorted(word for word in words if word not in (0, 4)), [table])

    def _frozenset(self, obj: int) -> Value:
        value = self._set(obj)
        return Value("frozenset", None, value.refs, value.owned)

    def _text(self, obj: int) -> tuple[bytes, int, list[int]]:
        data, size = self.get(obj, "mp_obj_str_t.data"), self.get(obj, "mp_obj_str_t.len")
        return self.read(data, size), size, [data]

    def _str(self, obj: int) -> Value:
        data, size, owned = self._text(obj)
        return Value("str", repr(data[:TEXT_SIZE_MAX].decode(errors="replace")) + more(size), owned=owned, raw=data)

    def _bytes(self, obj: int) -> Value:
        data, size, owned = self._text(obj)
        return Value("bytes", repr(data[:TEXT_SIZE_MAX]) + more(size), owned=owned, raw=data)

    def _bytearray(self, obj: int) -> Value:
        items, size = self.get(obj, "mp_obj_array_t.items"), self.get(obj, "mp_obj_array_t.len")
        data = self.read(items, size)
        return Value("bytearray", f"bytearray({data[:TEXT_SIZE_MAX]!r})" + more(size), owned=[items], raw=data)

    def _int(self, obj: int) -> Value:
        mpz = self.at(obj, "mp_obj_int_t.mpz")
        digits = self.get(mpz, "mpz_t.dig")
        value = int.from_bytes(self.read(digits, self.get(mpz, "mpz_t.len") * MPZ_DIGIT_SIZE), "little")
        sign = "-" if self.get(mpz, "mpz_t.neg") else ""
        return Value("int", sign + (str(value) if value.bit_length() <= 512 else f"{value:#x}"), owned=[digits])

    def _float(self, obj: int) -> Value:
        data = self.read(self.at(obj, "mp_obj_float_t.value"), 8)
        return Value("float", repr(struct.unpack("<d", data)[0]) if data else "?")

    # --- what is called ---

    def name_of(self, obj: int) -> str:
        """Of a function, or of that in a closure; `?` for others."""
        symbol = self.layouts.symbol.get(self.get(obj, "mp_obj_base_t.type"))
        if symbol == "mp_type_closure":
            obj = self.get(obj, "mp_obj_closure_t.fun")
            symbol = self.layouts.symbol.get(self.get(obj, "mp_obj_base_t.type"))
        if symbol in ("mp_type_fun_bc", "mp_type_gen_wrap"):
            return self._name_in(obj, self.get(obj, "mp_obj_fun_bc_t.bytecode"))
        if symbol in ("mp_type_fun_native", "mp_type_native_gen_wrap"):  # mp_obj_fun_native_get_prelude_ptr
            children = self.get(obj, "mp_obj_fun_bc_t.child_table")
            index = self.number(self.get(obj, "mp_obj_fun_bc_t.bytecode"))
            return self._name_in(obj, self.number(children + 8 * index) if index else children)
        return "?"

    def _name_in(self, obj: int, prelude: int) -> str:
        """The third number of a prelude is the name's place among its module's (py/bc.h, MP_BC_PRELUDE_*_DECODE)."""
        numbers = VARIABLE_NUMBER.findall(self.read(prelude, PRELUDE_SIZE_MAX))
        if len(numbers) < 3:
            return "?"
        index = reduce(lambda number, byte: number << 7 | byte & 127, numbers[2], 0)
        constants = self.at(self.get(obj, "mp_obj_fun_bc_t.context"), "mp_module_context_t.constants")
        table = self.get(constants, "mp_module_constants_t.qstr_table")
        return printable(self.qstr(self.number(table + QSTR_SIZE * index, QSTR_SIZE)))

    def _fun_bc(self, obj: int) -> Value:
        return Value("function", f"<function {self.name_of(obj)}>", raw=self.read(obj, self.block_size(obj)))

    _fun_native = _fun_bc

    def _gen_wrap(self, obj: int) -> Value:
        return replace(self._fun_bc(obj), kind="generator")

    _native_gen_wrap = _gen_wrap

    def _closure(self, obj: int) -> Value:
        closed = self.array(self.at(obj, "mp_obj_closure_t.closed"), self.get(obj, "mp_obj_closure_t.n_closed"))
        return Value("closure", f"<closure {self.name_of(obj)}>", [self.get(obj, "mp_obj_closure_t.fun"), *closed])

    def _cell(self, obj: int) -> Value:
        return Value("cell", "<cell>", [self.get(obj, "mp_obj_cell_t.obj")])

    def _bound_meth(self, obj: int) -> Value:
        method, owner = self.get(obj, "mp_obj_bound_meth_t.meth"), self.get(obj, "mp_obj_bound_meth_t.self")
        name = f"{self.type_name(self.get(owner, 'mp_obj_base_t.type'))}.{self.name_of(method)}"
        return Value("bound_method", f"<bound_method {name}>", [method, owner])

    def _type(self, obj: int) -> Value:
        return Value("type", f"<class {self.qstr(self.get(obj, 'mp_obj_type_t.name'))!r}>")

    # --- what is shown ---

    def show(self, obj: int, depth: int = 0) -> str:
        """A value, shortened."""
        value = self.value(obj)
        if value.atom is not None:
            return shortened(value.atom)
        pairs = value.kind in ("dict", "OrderedDict") or value.kind not in BRACKETS
        if pairs and not value.refs and value.kind != "dict":
            return shortened(f"<{value.kind}>")
        if depth == SHOWN_DEPTH:
            return "..."
        shown = value.refs[: SHOWN_ITEM_COUNT * (2 if pairs else 1)]
        texts = [self.show(ref, depth + 1) for ref in shown]
        if pairs:
            texts = [f"{key}: {text}" for key, text in zip(texts[::2], texts[1::2], strict=True)]
        left = "" if len(shown) == len(value.refs) else f", ... {len(value.refs) // (2 if pairs else 1)} in all"
        before, after = BRACKETS.get(value.kind, (f"<{value.kind} ", ">"))
        return shortened(before + ", ".join(texts) + left + after)

    def measure(self, obj: int) -> tuple[int, bytes]:
        """The heap bytes that an object keeps, and a hash of all that it is."""
        digest = hashlib.blake2b(digest_size=16)
        met: dict[int, int] = {}
        owned: dict[int, None] = {}
        waiting = [obj]
        while waiting:
            ref = waiting.pop()
            if len(met) == OBJECT_COUNT_MAX:
                self.complete = False
                break
            if ref in met:
                digest.update(b"again %d" % met[ref])
                continue
            value = self.value(ref)
            if not ref & 3:
                met[ref] = len(met)
                owned |= dict.fromkeys([ref, *value.owned])
            digest.update(f"{value.kind} {value.atom} {len(value.refs)} ".encode() + value.raw)
            waiting += reversed(value.refs)
        return sum(self.block_size(block) for block in owned), digest.digest()

    def variables(self) -> Iterator[Variable]:
        """The globals of __main__, by name."""
        vm = self.at(self.state, "mp_state_ctx_t.vm", "mp_state_vm_t.dict_main")
        items = self.map_items(self.at(vm, "mp_obj_dict_t.map"))
        found = sorted((self.value(key).atom or "?", obj) for key, obj in zip(items[::2], items[1::2], strict=True))
        for key, obj in found:
            name = key.strip("'")
            if name != "__name__":
                self.read_size_left, self.complete = self.read_size_max, True
                kind, shown = self.value(obj).kind, self.show(obj)
                size, digest = self.measure(obj)
                yield Variable(name, kind, shown, size, digest, self.complete)


BRACKETS = {
    "list": ("[", "]"), "tuple": ("(", ")"), "set": ("{", "}"), "frozenset": ("frozenset({", "})"),
    "dict": ("{", "}"), "OrderedDict": ("OrderedDict({", "})"),
}  # fmt: skip
MPZ_DIGIT_SIZE = 4


def printable(text: str) -> str:
    """Without what would steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def shortened(text: str) -> str:
    """At most SHOWN_SIZE_MAX characters."""
    return text if len(text) <= SHOWN_SIZE_MAX else text[: SHOWN_SIZE_MAX - 3] + "..."


def more(size: int) -> str:
    """Said where not all bytes were read."""
    return f" ... {size} bytes" if size > TEXT_SIZE_MAX else ""
