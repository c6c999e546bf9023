/*
 * kernel/drivers/virtio_pci.h: the PCI transport of virtio (virtio 1.2, 4.1), modern interface only.
 *
 * Promise: gives a virtio_device for a PCI function that is one of those that we drive, transitional ones included.
 * Called by: drivers.c. Context: start-up.
 */
#ifndef DRIVERS_VIRTIO_PCI_H
#define DRIVERS_VIRTIO_PCI_H

#include "drivers/pci.h"
#include "drivers/virtio.h"

/* NULL: not virtio, a type that we do not drive, or without what it needs (the log says which). */
struct virtio_device *virtio_pci_probe(const struct pci_function *function);

#endif
