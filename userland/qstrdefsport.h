// userland/qstrdefsport.h: interned strings whose names in C are not their text.
//
// Promise: one Q(name) a line. Read by: MicroPython's py/makeqstrdata.py; not C.
Q(/lib)
Q(other machine)
