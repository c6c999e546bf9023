/* kernel/drivers/entropy_device.h: gives entropy.c a virtio-rng; the first is used. Called by: drivers.c, before
 * entropy_init. */
#ifndef DRIVERS_ENTROPY_DEVICE_H
#define DRIVERS_ENTROPY_DEVICE_H

#include "drivers/virtio.h"

int entropy_device_start(struct virtio_device *device, dma_alloc_fn dma_alloc);

#endif
