/*
 * kernel/drivers/pci.c: PCI configuration space by ports 0xcf8 and 0xcfc, the scan, BARs and MSI-X (pci.h).
 *
 * Promise: no loop is longer than the specification allows, whatever a function answers.
 * Called by: drivers.c, virtio_pci.c. Context: interrupts off, one CPU, so address and data port need no lock.
 */
#include "drivers/pci.h"

#include "arch/x86_64/arch.h"
#include "lib/error.h"
#include "lib/lib.h"

/* Addresses that no chipset we know uses for RAM, MMCONFIG, IOAPIC or HPET. */
#define WINDOW_START 0xf0000000ull
#define WINDOW_END 0xfe000000ull

enum {
    ADDRESS_PORT = 0xcf8,
    DATA_PORT = 0xcfc,

    VENDOR_ID = 0x00,
    COMMAND = 0x04,
    STATUS = 0x06,
    HEADER_TYPE = 0x0e,
    BAR_0 = 0x10,
    SECONDARY_BUS = 0x19,
    SUBSYSTEM_ID = 0x2e,
    CAPABILITIES = 0x34,

    COMMAND_MEMORY = 1 << 1,
    COMMAND_MASTER = 1 << 2,
    COMMAND_NO_INTX = 1 << 10,
    STATUS_HAS_CAPABILITIES = 1 << 4,
    HEADER_IS_BRIDGE = 1,
    HEADER_MANY_FUNCTIONS = 0x80,
    BAR_COUNT = 6,
    BAR_IS_IO = 1,
    BAR_TYPE = 6,
    BAR_IS_64 = 4,

    CAPABILITY_COUNT_MAX = 48, /* 192 bytes behind the header, 4 at least for each */
    MSIX_ENABLE = 1 << 15,
    MSIX_MASK_ALL = 1 << 14,
    MSIX_ENTRY_WORDS = 4,
    MAP_SIZE_MAX = 1 << 16, /* more than any structure that we need; mappings are never given back */
};

static void select(const struct pci_function *function, unsigned offset) {
    arch_outl(ADDRESS_PORT, 1u << 31 | (uint32_t)function->bus << 16 | (uint32_t)function->device << 11 |
                                (uint32_t)function->function << 8 | (offset & 0xfc));
}

uint8_t pci_read8(const struct pci_function *function, unsigned offset) {
    select(function, offset);
    return arch_inb((uint16_t)(DATA_PORT + (offset & 3)));
}

uint16_t pci_read16(const struct pci_function *function, unsigned offset) {
    select(function, offset);
    return arch_inw((uint16_t)(DATA_PORT + (offset & 2)));
}

uint32_t pci_read32(const struct pci_function *function, unsigned offset) {
    select(function, offset);
    return arch_inl(DATA_PORT);
}

void pci_write16(const struct pci_function *function, unsigned offset, uint16_t value) {
    select(function, offset);
    arch_outw((uint16_t)(DATA_PORT + (offset & 2)), value);
}

static void write32(const struct pci_function *function, unsigned offset, uint32_t value) {
    select(function, offset);
    arch_outl(DATA_PORT, value);
}

static void scan_bus(unsigned bus, void (*found)(const struct pci_function *));

/* Returns the header type, or -1 when nothing is there. */
static int scan_function(unsigned bus, unsigned device, unsigned number, void (*found)(const struct pci_function *)) {
    struct pci_function function = {.bus = (uint8_t)bus, .device = (uint8_t)device, .function = (uint8_t)number};
    uint32_t ids = pci_read32(&function, VENDOR_ID);
    if ((ids & 0xffff) == 0xffff)
        return -1;
    int header = pci_read8(&function, HEADER_TYPE);
    if ((header & 0x7f) == HEADER_IS_BRIDGE) {
        unsigned secondary = pci_read8(&function, SECONDARY_BUS);
        if (secondary > bus) /* else not numbered by the firmware; and a loop would never end */
            scan_bus(secondary, found);
        return header;
    }
    function.vendor_id = (uint16_t)ids;
    function.device_id = (uint16_t)(ids >> 16);
    function.subsystem_id = pci_read16(&function, SUBSYSTEM_ID);
    found(&function);
    return header;
}

static void scan_bus(unsigned bus, void (*found)(const struct pci_function *)) {
    for (unsigned device = 0; device < 32; device++) {
        int header = scan_function(bus, device, 0, found);
        if (header < 0 || !(header & HEADER_MANY_FUNCTIONS))
            continue;
        for (unsigned number = 1; number < 8; number++)
            (void)scan_function(bus, device, number, found); /* absent ones are normal */
    }
}

void pci_scan(void (*found)(const struct pci_function *function)) {
    scan_bus(0, found);
}

unsigned pci_capability(const struct pci_function *function, unsigned id, unsigned after) {
    if (!(pci_read16(function, STATUS) & STATUS_HAS_CAPABILITIES))
        return 0;
    unsigned offset = pci_read8(function, after ? after + 1 : CAPABILITIES) & 0xfc;
    for (unsigned i = 0; i < CAPABILITY_COUNT_MAX && offset >= 0x40; i++) {
        uint16_t head = pci_read16(function, offset);
        if ((head & 0xff) == id)
            return offset;
        offset = head >> 8 & 0xfc;
    }
    return 0;
}

/* For firmware that leaves BARs empty (qboot): the next place in the window, aligned to the size. 0: no room. */
static uint64_t assign_bar(const struct pci_function *function, unsigned bar, int is_64) {
    static uint64_t window_next = WINDOW_START;
    unsigned offset = BAR_0 + 4 * bar;
    uint16_t command = pci_read16(function, COMMAND);
    pci_write16(function, COMMAND, command & (uint16_t)~COMMAND_MEMORY); /* while the BAR holds the size mask */
    write32(function, offset, UINT32_MAX);
    uint64_t size = (uint32_t)(~(pci_read32(function, offset) & ~15u) + 1); /* 0: not there, or 4 GiB at least */
    uint64_t address = size ? (window_next + size - 1) & ~(size - 1) : 0;
    if (address + size > WINDOW_END)
        address = 0;
    window_next = address ? address + size : window_next;
    write32(function, offset, (uint32_t)address);
    if (is_64)
        write32(function, offset + 4, 0);
    pci_write16(function, COMMAND, command);
    return address;
}

/* Physical address of a memory BAR; 0: there is none. */
static uint64_t bar_address(const struct pci_function *function, unsigned bar) {
    if (bar >= BAR_COUNT)
        return 0;
    uint32_t low = pci_read32(function, BAR_0 + 4 * bar);
    int is_64 = (low & BAR_TYPE) == BAR_IS_64;
    if ((low & BAR_IS_IO) || (is_64 && bar + 1 == BAR_COUNT))
        return 0;
    uint64_t address = low & ~15u;
    if (is_64)
        address |= (uint64_t)pci_read32(function, BAR_0 + 4 * (bar + 1)) << 32;
    return address ? address : assign_bar(function, bar, is_64);
}

volatile void *pci_map(const struct pci_function *function, unsigned bar, uint32_t offset, uint32_t size) {
    uint64_t base = bar_address(function, bar);
    if (!base || size == 0 || size > MAP_SIZE_MAX || base + offset > PTE_ADDRESS - MAP_SIZE_MAX)
        return NULL;
    return mmio_map(base + offset, size);
}

void pci_bus_master(const struct pci_function *function, int on) {
    uint16_t command = pci_read16(function, COMMAND) | COMMAND_NO_INTX;
    if (on)
        command |= COMMAND_MEMORY | COMMAND_MASTER;
    else
        command &= (uint16_t)~COMMAND_MASTER;
    pci_write16(function, COMMAND, command);
}

int pci_msix_enable(const struct pci_function *function, struct pci_msix *msix) {
    unsigned offset = pci_capability(function, PCI_CAP_MSIX, 0);
    if (!offset)
        return -E_NOENT;
    uint16_t control = pci_read16(function, offset + 2);
    uint32_t where = pci_read32(function, offset + 4);
    msix->entry_count = (control & 0x7ffu) + 1;
    msix->table = pci_map(function, where & 7, where & ~7u, msix->entry_count * MSIX_ENTRY_WORDS * 4);
    if (!msix->table)
        return -E_NOENT;
    pci_write16(function, offset + 2, (uint16_t)(control | MSIX_ENABLE | MSIX_MASK_ALL));
    for (unsigned entry = 0; entry < msix->entry_count; entry++)
        msix->table[entry * MSIX_ENTRY_WORDS + 3] = 1;
    pci_write16(function, offset + 2, (uint16_t)((control | MSIX_ENABLE) & ~MSIX_MASK_ALL));
    return 0;
}

int pci_msix_set(struct pci_msix *msix, unsigned entry, unsigned vector) {
    if (entry >= msix->entry_count)
        return -E_RANGE;
    volatile uint32_t *words = msix->table + entry * MSIX_ENTRY_WORDS;
    uint64_t address = interrupt_msi_address();
    words[0] = (uint32_t)address;
    words[1] = (uint32_t)(address >> 32);
    words[2] = interrupt_msi_data(vector);
    words[3] = 0;
    return 0;
}
