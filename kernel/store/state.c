/*
 * kernel/store/state.c: the state of the one store, and what everybody may ask of it.
 *
 * Promise: nothing here waits or changes anything; between two commits it is as the newest durable root says.
 * Called by: everybody.
 */
#include "store/internal.h"

struct store store;

uint64_t store_generation(void) { return store.root.generation; }
uint64_t store_mono_ns(void) { return store.root.mono_ns; }
uint64_t store_wall_ns(void) { return store.root.wall_ns; }
const uint8_t *store_id(void) { return store.header.store_id; }
int store_commit_running(void) { return store.request != NULL; }

/* Of what is being built; outside of a commit the durable one. */
uint64_t commit_generation(void) {
    return store.request != NULL ? store.request->generation : store.root.generation;
}
