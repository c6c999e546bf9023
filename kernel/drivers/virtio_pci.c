/*
 * kernel/drivers/virtio_pci.c: the PCI transport of virtio (virtio 1.2, 4.1); see virtio_pci.h.
 *
 * Promise: registers are reached only inside the lengths that the device's capabilities give.
 * Called by: virtio.c through the transport table. Context: start-up; status and stop_dma from interrupts, too.
 */
#include "drivers/virtio_pci.h"

#include "arch/x86_64/arch.h"
#include "drivers/block.h"
#include "lib/error.h"
#include "lib/lib.h"

enum {
    VENDOR_VIRTIO = 0x1af4,
    DEVICE_TRANSITIONAL_FIRST = 0x1000,
    DEVICE_MODERN_FIRST = 0x1040,
    DEVICE_MODERN_LAST = 0x107f,
    STRUCTURE_COMMON = 1, /* 4.1.4 */
    STRUCTURE_NOTIFY = 2,
    STRUCTURE_DEVICE = 4,
    STRUCTURE_SIZE_MAX = 1 << 16, /* the first queues' doorbells are enough */
    NO_VECTOR = 0xffff,
    MSIX_QUEUE = 0,
    MSIX_CONFIG = 1,
    DEVICE_COUNT_MAX = BLOCK_DEVICE_COUNT_MAX + 1, /* and one for entropy */
    CONFIG_RETRY_COUNT_MAX = 100,
};

struct common_registers { /* 4.1.4.3 */
    uint32_t device_feature_select;
    uint32_t device_feature;
    uint32_t driver_feature_select;
    uint32_t driver_feature;
    uint16_t config_msix_vector;
    uint16_t queue_count;
    uint8_t device_status;
    uint8_t config_generation;
    uint16_t queue_select;
    uint16_t queue_size;
    uint16_t queue_msix_vector;
    uint16_t queue_enable;
    uint16_t queue_notify_offset;
    uint32_t queue_desc[2]; /* low, high: 64-bit fields are accessed in halves */
    uint32_t queue_avail[2];
    uint32_t queue_used[2];
};
_Static_assert(sizeof(struct common_registers) == 56, "virtio_pci_common_cfg");
_Static_assert(offsetof(struct common_registers, queue_desc) == 32, "virtio_pci_common_cfg.queue_desc");

struct virtio_pci {
    struct virtio_device device; /* first: the transport's functions get a pointer to it */
    struct pci_function function;
    struct pci_msix msix;
    volatile struct common_registers *common;
    volatile uint8_t *notify;
    uint32_t notify_size, notify_multiplier;
    volatile uint8_t *config;
    uint32_t config_size;
};

static struct virtio_pci devices[DEVICE_COUNT_MAX];
static unsigned device_count;

static struct virtio_pci *pci_of(struct virtio_device *device) {
    return (struct virtio_pci *)device;
}

static uint8_t status(struct virtio_device *device) {
    return pci_of(device)->common->device_status;
}

static void set_status(struct virtio_device *device, uint8_t value) {
    pci_of(device)->common->device_status = value;
}

static uint64_t features(struct virtio_device *device) {
    volatile struct common_registers *common = pci_of(device)->common;
    common->device_feature_select = 0;
    uint64_t low = common->device_feature;
    common->device_feature_select = 1;
    return (uint64_t)common->device_feature << 32 | low;
}

static void set_features(struct virtio_device *device, uint64_t value) {
    volatile struct common_registers *common = pci_of(device)->common;
    common->driver_feature_select = 0;
    common->driver_feature = (uint32_t)value;
    common->driver_feature_select = 1;
    common->driver_feature = (uint32_t)(value >> 32);
}

/* 4.1.3.1: fields are read in their own width; 64-bit ones as two halves. */
static void read_config_once(struct virtio_pci *pci, unsigned offset, void *to, size_t size) {
    volatile uint8_t *from = pci->config + offset;
    if (size == 1) {
        *(uint8_t *)to = *from;
    } else if (size == 2) {
        *(uint16_t *)to = *(volatile uint16_t *)from;
    } else {
        for (size_t i = 0; i < size / 4; i++)
            ((uint32_t *)to)[i] = ((volatile uint32_t *)from)[i];
    }
}

static int read_config(struct virtio_device *device, unsigned offset, void *to, size_t size) {
    struct virtio_pci *pci = pci_of(device);
    check(size == 1 || size == 2 || size == 4 || size == 8);
    if (size > pci->config_size || offset > pci->config_size - size)
        return -E_RANGE;
    for (unsigned i = 0; i < CONFIG_RETRY_COUNT_MAX; i++) {
        uint8_t generation = pci->common->config_generation;
        read_config_once(pci, offset, to, size);
        if (generation == pci->common->config_generation)
            return 0;
    }
    return -E_IO;
}

static uint16_t queue_size_max(struct virtio_device *device, unsigned index) {
    volatile struct common_registers *common = pci_of(device)->common;
    if (index >= common->queue_count)
        return 0;
    common->queue_select = (uint16_t)index;
    return common->queue_size;
}

static void write_address(volatile uint32_t *halves, const volatile void *memory) {
    uint64_t physical = virt_to_phys((const void *)memory);
    halves[0] = (uint32_t)physical;
    halves[1] = (uint32_t)(physical >> 32);
}

static int set_queue_vector(volatile struct common_registers *common, uint16_t entry) {
    common->queue_msix_vector = entry;
    return common->queue_msix_vector == entry ? 0 : -E_LIMIT; /* 4.1.5.1.2: NO_VECTOR when the device has no room */
}

static int queue_enable(struct virtio_device *device, struct virtqueue *queue) {
    struct virtio_pci *pci = pci_of(device);
    volatile struct common_registers *common = pci->common;
    common->queue_select = queue->index;
    common->queue_size = queue->size;
    int result = set_queue_vector(common, queue->interrupts ? MSIX_QUEUE : NO_VECTOR);
    if (result < 0)
        return result;
    uint64_t doorbell = (uint64_t)common->queue_notify_offset * pci->notify_multiplier;
    if (pci->notify_size < 2 || doorbell > pci->notify_size - 2 || doorbell % 2)
        return -E_RANGE;
    queue->doorbell = (volatile uint16_t *)(pci->notify + doorbell);
    write_address(common->queue_desc, queue->desc);
    write_address(common->queue_avail, queue->avail);
    write_address(common->queue_used, queue->used);
    common->queue_enable = 1;
    return 0;
}

static int set_interrupts(struct virtio_device *device, unsigned queue_vector, unsigned config_vector) {
    struct virtio_pci *pci = pci_of(device);
    int result = pci_msix_enable(&pci->function, &pci->msix);
    if (result == 0)
        result = pci_msix_set(&pci->msix, MSIX_QUEUE, queue_vector);
    if (result == 0)
        result = pci_msix_set(&pci->msix, MSIX_CONFIG, config_vector);
    if (result < 0)
        return result;
    pci->common->config_msix_vector = MSIX_CONFIG;
    return pci->common->config_msix_vector == MSIX_CONFIG ? 0 : -E_LIMIT;
}

static void stop_dma(struct virtio_device *device) {
    pci_bus_master(&pci_of(device)->function, 0);
}

static const struct virtio_transport transport = {
    .status = status,
    .set_status = set_status,
    .features = features,
    .set_features = set_features,
    .read_config = read_config,
    .queue_size_max = queue_size_max,
    .queue_enable = queue_enable,
    .set_interrupts = set_interrupts,
    .stop_dma = stop_dma,
};

/* 4.1.2: the type is in the device id, or for transitional devices in the subsystem's. 0: not virtio. */
static unsigned type_of(const struct pci_function *function) {
    if (function->vendor_id != VENDOR_VIRTIO)
        return 0;
    if (function->device_id >= DEVICE_MODERN_FIRST && function->device_id <= DEVICE_MODERN_LAST)
        return function->device_id - DEVICE_MODERN_FIRST;
    if (function->device_id >= DEVICE_TRANSITIONAL_FIRST && function->device_id < DEVICE_MODERN_FIRST)
        return function->subsystem_id;
    return 0;
}

/* Maps the first structure of that kind, or its beginning; `capability` gets its offset in configuration space. */
static volatile void *map_structure(struct virtio_pci *pci, unsigned kind, uint32_t *size, unsigned *capability) {
    const struct pci_function *function = &pci->function;
    unsigned at = 0;
    while ((at = pci_capability(function, PCI_CAP_VENDOR, at))) {
        if (at > 0xf0 || pci_read8(function, at + 3) != kind)
            continue;
        *capability = at;
        uint32_t whole_size = pci_read32(function, at + 12);
        *size = whole_size < STRUCTURE_SIZE_MAX ? whole_size : STRUCTURE_SIZE_MAX;
        return pci_map(function, pci_read8(function, at + 4), pci_read32(function, at + 8), *size);
    }
    return NULL;
}

static int map_structures(struct virtio_pci *pci) {
    uint32_t common_size = 0;
    unsigned capability = 0;
    pci->common = map_structure(pci, STRUCTURE_COMMON, &common_size, &capability);
    if (!pci->common || common_size < sizeof *pci->common)
        return -E_VERSION; /* a legacy device */
    pci->notify = map_structure(pci, STRUCTURE_NOTIFY, &pci->notify_size, &capability);
    if (!pci->notify)
        return -E_NOENT;
    pci->notify_multiplier = pci_read32(&pci->function, capability + 16);
    pci->config = map_structure(pci, STRUCTURE_DEVICE, &pci->config_size, &capability);
    if (!pci->config)
        pci->config_size = 0; /* entropy has none */
    return 0;
}

struct virtio_device *virtio_pci_probe(const struct pci_function *function) {
    unsigned type = type_of(function);
    if (type != VIRTIO_BLOCK && type != VIRTIO_ENTROPY)
        return NULL;
    if (device_count == DEVICE_COUNT_MAX) {
        notice("virtio: one device too many at %x:%x", function->bus, function->device);
        return NULL;
    }
    struct virtio_pci *pci = &devices[device_count];
    pci->device = (struct virtio_device){.transport = &transport, .type = (enum virtio_type)type};
    pci->function = *function;
    pci_bus_master(function, 1);
    int result = map_structures(pci);
    if (result < 0) {
        notice("virtio: %x:%x of type %u is not usable: error %d", function->bus, function->device, type, result);
        return NULL;
    }
    device_count++;
    return &pci->device;
}
