/* kernel/drivers/entropy.h: random bytes for store ids and programs: RDRAND and virtio-rng mixed through BLAKE2b; never
 * the same after a restart. entropy_init: after clock_init and drivers_init. Called by: store (ids), proc (random). */
#ifndef DRIVERS_ENTROPY_H
#define DRIVERS_ENTROPY_H
#include <stddef.h>
void entropy_init(void);
void entropy_read(void *buffer, size_t size);
#endif
