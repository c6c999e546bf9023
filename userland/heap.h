/*
 * userland/heap.h: what heap.c (where the heap's areas lie) and collect.c (when they are collected) offer each other.
 *
 * Promise: declarations only.
 * Included by: heap.c, collect.c.
 */
#ifndef USERLAND_HEAP_H
#define USERLAND_HEAP_H

#include "py/mpstate.h"

void port_heap_settle(size_t used_count); /* after a collection, with so many blocks in use: gives back, or grows */
void port_collect_init(void);             /* after gc_init */
size_t port_area_used_count(const mp_state_mem_area_t *area); /* blocks */

#endif
