/*
 * kernel/drivers/drivers.c: finds and starts all devices, once.
 *
 * Promise: a device that does not start is said so and left alone; the others start.
 * Called by: main.c, after arch_init and paging_init. Context: start-up, interrupts off.
 */
#include "drivers/drivers.h"

#include "drivers/entropy_device.h"
#include "drivers/pci.h"
#include "drivers/virtio_blk.h"
#include "drivers/virtio_pci.h"
#include "lib/lib.h"

static dma_alloc_fn allocate;

static int start_device(struct virtio_device *device) {
    if (device->type == VIRTIO_BLOCK)
        return virtio_blk_start(device, allocate);
    return entropy_device_start(device, allocate);
}

static void on_function(const struct pci_function *function) {
    struct virtio_device *device = virtio_pci_probe(function);
    if (!device)
        return;
    int status = start_device(device);
    if (status < 0)
        notice("virtio: %x:%x does not start: error %d", function->bus, function->device, status);
}

int drivers_init(void *(*dma_alloc)(unsigned page_count)) {
    allocate = dma_alloc;
    pci_scan(on_function);
    return 0;
}
