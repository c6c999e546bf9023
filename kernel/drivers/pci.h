/*
 * kernel/drivers/pci.h: PCI functions: finding them, their configuration space, BARs, capabilities and MSI-X.
 *
 * Promise: what a function says of itself is bounded (capability lists, bus numbers, table sizes). Addresses are as the
 * firmware assigned them; only a BAR that it left empty gets one from us. PCI Local Bus 3.0, ports 0xcf8 and 0xcfc.
 * Called by: drivers.c, virtio_pci.c. Context: start-up; pci_bus_master also from a dying device's interrupt.
 */
#ifndef DRIVERS_PCI_H
#define DRIVERS_PCI_H

#include <stddef.h>
#include <stdint.h>

enum { PCI_CAP_VENDOR = 0x09, PCI_CAP_MSIX = 0x11 };

struct pci_function {
    uint8_t bus, device, function;
    uint16_t vendor_id, device_id, subsystem_id;
};

struct pci_msix {
    volatile uint32_t *table;
    unsigned entry_count;
};

/* Calls found for each function of bus 0 and of every bus behind it. */
void pci_scan(void (*found)(const struct pci_function *function));

uint8_t pci_read8(const struct pci_function *function, unsigned offset);
uint16_t pci_read16(const struct pci_function *function, unsigned offset);
uint32_t pci_read32(const struct pci_function *function, unsigned offset);
void pci_write16(const struct pci_function *function, unsigned offset, uint16_t value);

/* Offset of the next capability of that kind behind `after` (0: from the start); 0: there is none. */
unsigned pci_capability(const struct pci_function *function, unsigned id, unsigned after);
volatile void *pci_map(const struct pci_function *function, unsigned bar, uint32_t offset, uint32_t size); /* or NULL */
void pci_bus_master(const struct pci_function *function, int on); /* on: memory decoding, too; INTx stays off */

int pci_msix_enable(const struct pci_function *function, struct pci_msix *msix); /* all entries masked; or -E_NOENT */
int pci_msix_set(struct pci_msix *msix, unsigned entry, unsigned vector);        /* or -E_RANGE */

#endif
