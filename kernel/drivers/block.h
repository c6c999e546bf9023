/*
 * kernel/drivers/block.h: block devices as the rest of the kernel sees them.
 *
 * Promise: requests are queued without limit by the driver (in order of submission), many are in flight; each `done`
 * runs exactly once, in interrupt context or from block_poll. A failed request says -E_IO and never hangs the others.
 * Called by: main.c (devices), the store's operations table. Buffers are whole frames in the direct map.
 */
#ifndef DRIVERS_BLOCK_H
#define DRIVERS_BLOCK_H

#include <stdint.h>

#include "lib/list.h"

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH };
enum { BLOCK_PAGES_MAX = 64, BLOCK_DEVICE_COUNT_MAX = 9 };

struct block_request {
    enum block_op op;
    uint64_t sector;       /* of 512 bytes */
    uint32_t page_count;   /* pages of 4096 bytes, 0 for a flush */
    void *page[BLOCK_PAGES_MAX];
    void (*done)(struct block_request *request, int status);
    void *owner;           /* the submitter's own */
    struct list_node link; /* the driver's while it has the request */
    uint64_t submit_cycles;
};

struct block_device {
    char serial[21];       /* "near", "far1", … */
    uint64_t sector_count;
    int read_only;
    void *driver;
};

unsigned block_device_count(void);
struct block_device *block_device(unsigned index);
struct block_device *block_device_by_serial(const char *serial); /* or NULL */

/* Takes the request until its done has run. -E_INVAL: out of the device's range, or a write to a read-only device;
 * -E_IO: the whole device is dead. With an error the request is not taken: its done does not run. */
int block_submit(struct block_device *device, struct block_request *request);

/* Runs the completions that are there; for boot, before interrupts are on, and for the commit path. */
void block_poll(void);

#endif
