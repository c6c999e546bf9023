// userland/qstrdefsport.h: interned strings that no source file mentions as MP_QSTR_...: none so far.
//
// Promise: one Q(name) a line. Read by: MicroPython's py/makeqstrdata.py; not C.
