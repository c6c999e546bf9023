/* kernel/drivers/virtio_blk.h: starts a virtio block device, adds it to the table of block.h. Called by: drivers.c,
 * once each. */
#ifndef DRIVERS_VIRTIO_BLK_H
#define DRIVERS_VIRTIO_BLK_H

#include "drivers/virtio.h"

int virtio_blk_start(struct virtio_device *device, dma_alloc_fn dma_alloc);

#endif
