/*
 * kernel/drivers/virtio_blk.c: virtio block devices (virtio 1.2, 5.2) behind block.h.
 *
 * Promise: a request waits in order until it has a slot, then is the device's until it answers; `done` runs once,
 * from the interrupt or block_poll. A device that fails, lies or wants a reset is reset, everything it had says
 * -E_IO, it stays dead.
 * Called by: block.h's callers, interrupts. Context: interrupts off. Without VIRTIO_BLK_F_FLUSH the device writes
 * through.
 */
#include "drivers/virtio_blk.h"

#include "arch/x86_64/arch.h"
#include "drivers/block.h"
#include "lib/error.h"
#include "lib/lib.h"

#define FEATURE_SIZE_MAX (1ull << 1)
#define FEATURE_SEG_MAX (1ull << 2)
#define FEATURE_RO (1ull << 5)
#define FEATURE_FLUSH (1ull << 9)

enum request_type { TYPE_IN = 0, TYPE_OUT = 1, TYPE_FLUSH = 4, TYPE_GET_ID = 8 };
enum { STATUS_OK = 0, STATUS_PENDING = 0xff }; /* 1 and 2 are errors; 0xff is ours */
enum { CONFIG_CAPACITY = 0, CONFIG_SIZE_MAX = 8, CONFIG_SEG_MAX = 12 };
enum {
    PAGE_SIZE = 4096,
    SECTORS_PER_PAGE = 8,
    SERIAL_SIZE = 20,
    DESC_COUNT_MAX = BLOCK_PAGES_MAX + 2, /* header, pages, status */
    SLOT_COUNT_MAX = VIRTQUEUE_SIZE_MAX,
};
#define GET_ID_LIMIT_CYCLES 10000000000ull /* seconds, whatever the clock */

/* DMA memory, one for each request that the device has. */
struct slot_dma {
    struct virtq_desc chain[DESC_COUNT_MAX];
    struct {
        uint32_t type;
        uint32_t zero;
        uint64_t sector;
    } header;
    volatile uint8_t status;
    uint8_t serial[SERIAL_SIZE];
    uint8_t zero[11];
};
_Static_assert(sizeof(struct slot_dma) % 16 == 0, "descriptor tables are aligned to 16");

struct slot {
    struct block_request *request; /* NULL: free */
    uint16_t page_index, page_count; /* the part of the request that the device has now */
    uint16_t next_free;
};

struct virtio_blk {
    struct block_device block;
    struct virtio_device *device;
    struct virtqueue queue;
    struct list_node waiting; /* requests without a slot, in order */
    struct slot_dma *dma;
    struct slot slot[SLOT_COUNT_MAX];
    uint16_t free_slot, slot_count;
    unsigned part_page_count_max; /* pages that the device takes in one request of its own */
    int has_flush, dead, draining;
};

static struct virtio_blk disks[BLOCK_DEVICE_COUNT_MAX];
static unsigned disk_count;

/* --- one request of the device --- */

static uint32_t device_type(const struct virtio_blk *disk, const struct block_request *request) {
    if (request->op == BLOCK_READ)
        return TYPE_IN;
    if (request->op == BLOCK_WRITE)
        return TYPE_OUT;
    return disk->has_flush ? TYPE_FLUSH : TYPE_GET_ID; /* nothing to flush: ask something harmless, to be called back */
}

static unsigned fill_chain(struct slot_dma *dma, const struct slot *slot, uint32_t type) {
    struct virtq_desc *desc = dma->chain;
    *desc++ = (struct virtq_desc){virt_to_phys(&dma->header), sizeof dma->header, 0, 0};
    uint16_t write = type == TYPE_IN ? VIRTQ_WRITE : 0;
    for (unsigned i = 0; i < slot->page_count; i++)
        *desc++ = (struct virtq_desc){virt_to_phys(slot->request->page[slot->page_index + i]), PAGE_SIZE, write, 0};
    if (type == TYPE_GET_ID)
        *desc++ = (struct virtq_desc){virt_to_phys(dma->serial), SERIAL_SIZE, VIRTQ_WRITE, 0};
    *desc++ = (struct virtq_desc){virt_to_phys((const void *)&dma->status), 1, VIRTQ_WRITE, 0};
    return (unsigned)(desc - dma->chain);
}

/* Gives the next part of the slot's request to the device. */
static int add_part(struct virtio_blk *disk, struct slot *slot) {
    struct block_request *request = slot->request;
    struct slot_dma *dma = &disk->dma[slot - disk->slot];
    unsigned left = request->page_count - slot->page_index;
    slot->page_count = (uint16_t)(left < disk->part_page_count_max ? left : disk->part_page_count_max);
    uint32_t type = device_type(disk, request);
    int is_data = type == TYPE_IN || type == TYPE_OUT;
    dma->header.type = type;
    dma->header.sector = is_data ? request->sector + (uint64_t)slot->page_index * SECTORS_PER_PAGE : 0;
    dma->status = STATUS_PENDING;
    return virtqueue_add(&disk->queue, dma->chain, fill_chain(dma, slot, type), slot);
}

/* What the device said of the part: 0 or -E_IO. A read that did not fill its pages has failed. */
static int part_status(const struct virtio_blk *disk, const struct slot *slot, uint32_t written) {
    if (disk->dma[slot - disk->slot].status != STATUS_OK)
        return -E_IO;
    if (slot->request->op == BLOCK_READ && written < (uint32_t)slot->page_count * PAGE_SIZE + 1)
        return -E_IO;
    return 0;
}

/* --- slots --- */

static void free_slot(struct virtio_blk *disk, struct slot *slot) {
    slot->request = NULL;
    slot->next_free = disk->free_slot;
    disk->free_slot = (uint16_t)(slot - disk->slot);
}

static void finish(struct virtio_blk *disk, struct slot *slot, int status) {
    struct block_request *request = slot->request;
    free_slot(disk, slot);
    request->done(request, status);
}

/* Moves waiting requests to the device while it has room. 1: it has new ones to be told of. */
static int start_waiting(struct virtio_blk *disk) {
    int added = 0;
    while (!list_empty(&disk->waiting) && disk->free_slot < disk->slot_count) {
        struct slot *slot = &disk->slot[disk->free_slot];
        slot->request = list_entry(disk->waiting.next, struct block_request, link);
        slot->page_index = 0;
        if (add_part(disk, slot) < 0) {
            slot->request = NULL; /* the ring is full (or broken: then the next drain ends it) */
            break;
        }
        disk->free_slot = slot->next_free;
        list_remove(&slot->request->link);
        added = 1;
    }
    return added;
}

/* The part came back: the next one, or the end. Its descriptors were just freed, so there is room. */
static int finish_part(struct virtio_blk *disk, struct slot *slot, uint32_t written) {
    int status = part_status(disk, slot, written);
    slot->page_index = (uint16_t)(slot->page_index + slot->page_count);
    if (status == 0 && slot->page_index < slot->request->page_count) {
        check(add_part(disk, slot) == 0);
        return 1;
    }
    finish(disk, slot, status);
    return 0;
}

/* --- the whole device --- */

/* After the reset the device has no buffer of ours any more, so all can be given back. */
static void die(struct virtio_blk *disk) {
    if (disk->dead)
        return;
    disk->dead = 1;
    notice("block: %s failed, all its requests with it", disk->block.serial);
    virtio_stop(disk->device);
    for (unsigned i = 0; i < disk->slot_count; i++)
        if (disk->slot[i].request)
            finish(disk, &disk->slot[i], -E_IO);
    struct list_node waiting, *node;
    list_take(&waiting, &disk->waiting);
    while ((node = list_pop(&waiting))) {
        struct block_request *request = list_entry(node, struct block_request, link);
        request->done(request, -E_IO);
    }
}

/* Completions may submit more: those are announced together, at the end. */
static void drain(struct virtio_blk *disk) {
    if (disk->draining || disk->dead)
        return;
    disk->draining = 1;
    void *slot;
    uint32_t written;
    int status, added = 0;
    uint16_t avail_before = disk->queue.avail_index;
    while ((status = virtqueue_take(&disk->queue, &slot, &written)) > 0)
        added |= finish_part(disk, slot, written);
    if (status == 0 && (start_waiting(disk) || added || disk->queue.avail_index != avail_before))
        virtqueue_notify(&disk->queue);
    disk->draining = 0;
    if (status < 0)
        die(disk);
}

static void on_queue_interrupt(void *context) {
    drain(context);
}

static void on_config_interrupt(void *context) {
    struct virtio_blk *disk = context;
    if (!disk->dead && virtio_failed(disk->device))
        die(disk);
}

/* --- block.h --- */

unsigned block_device_count(void) {
    return disk_count;
}

struct block_device *block_device(unsigned index) {
    check(index < disk_count);
    return &disks[index].block;
}

struct block_device *block_device_by_serial(const char *serial) {
    for (unsigned i = 0; i < disk_count; i++)
        if (strcmp(disks[i].block.serial, serial) == 0)
            return &disks[i].block;
    return NULL;
}

static int request_is_valid(const struct block_device *device, const struct block_request *request) {
    if (request->op == BLOCK_FLUSH)
        return request->page_count == 0;
    if (request->op == BLOCK_WRITE && device->read_only)
        return 0;
    uint64_t sector_count = (uint64_t)request->page_count * SECTORS_PER_PAGE;
    return request->page_count > 0 && request->page_count <= BLOCK_PAGES_MAX && sector_count <= device->sector_count &&
           request->sector <= device->sector_count - sector_count;
}

int block_submit(struct block_device *device, struct block_request *request) {
    struct virtio_blk *disk = device->driver;
    if (!request_is_valid(device, request))
        return -E_INVAL;
    if (disk->dead)
        return -E_IO;
    request->submit_cycles = arch_cycles();
    list_append(&disk->waiting, &request->link);
    if (start_waiting(disk) && !disk->draining)
        virtqueue_notify(&disk->queue);
    return 0;
}

void block_poll(void) {
    for (unsigned i = 0; i < disk_count; i++)
        drain(&disks[i]);
}

/* --- start-up --- */

static int read_limits(struct virtio_blk *disk) {
    struct virtio_device *device = disk->device;
    uint32_t size_max = PAGE_SIZE, seg_max = 1; /* what a device that says nothing surely takes */
    int status = virtio_read_config(device, CONFIG_CAPACITY, &disk->block.sector_count, 8);
    if (status == 0 && (device->features & FEATURE_SIZE_MAX))
        status = virtio_read_config(device, CONFIG_SIZE_MAX, &size_max, 4);
    if (status == 0 && (device->features & FEATURE_SEG_MAX))
        status = virtio_read_config(device, CONFIG_SEG_MAX, &seg_max, 4);
    if (status < 0)
        return status;
    if (size_max < PAGE_SIZE || seg_max == 0 || disk->queue.size < 3)
        return -E_RANGE;
    unsigned ring_max = disk->queue.size - 2u;
    disk->part_page_count_max = seg_max < BLOCK_PAGES_MAX ? seg_max : BLOCK_PAGES_MAX;
    if (disk->part_page_count_max > ring_max)
        disk->part_page_count_max = ring_max;
    disk->block.read_only = (device->features & FEATURE_RO) != 0;
    disk->has_flush = (device->features & FEATURE_FLUSH) != 0;
    return 0;
}

static int make_slots(struct virtio_blk *disk, dma_alloc_fn dma_alloc) {
    disk->slot_count = disk->queue.size;
    size_t size = disk->slot_count * sizeof(struct slot_dma);
    disk->dma = dma_alloc((unsigned)((size + PAGE_SIZE - 1) / PAGE_SIZE));
    if (!disk->dma)
        return -E_NOMEM;
    disk->free_slot = disk->slot_count;
    for (unsigned i = disk->slot_count; i-- > 0;)
        free_slot(disk, &disk->slot[i]);
    return 0;
}

/* The serial has up to 20 characters and no end mark when it has all of them (5.2.6.1). */
static int read_serial(struct virtio_blk *disk) {
    struct slot_dma *dma = disk->dma;
    dma->header.type = TYPE_GET_ID;
    dma->status = STATUS_PENDING;
    int status = virtqueue_add(&disk->queue, dma->chain, fill_chain(dma, disk->slot, TYPE_GET_ID), disk->slot);
    if (status < 0)
        return status;
    virtqueue_notify(&disk->queue);
    void *cookie;
    uint32_t written;
    status = virtqueue_wait(&disk->queue, &cookie, &written, GET_ID_LIMIT_CYCLES);
    if (status <= 0)
        return -E_IO;
    unsigned length = dma->status == STATUS_OK && written > SERIAL_SIZE ? SERIAL_SIZE : 0; /* unsupported: no name */
    memcpy(disk->block.serial, dma->serial, length);
    disk->block.serial[length] = 0;
    return 0;
}

static int set_interrupts(struct virtio_blk *disk) {
    int queue_vector = interrupt_alloc(on_queue_interrupt, disk);
    int config_vector = interrupt_alloc(on_config_interrupt, disk);
    if (queue_vector < 0 || config_vector < 0)
        return -E_LIMIT;
    return disk->device->transport->set_interrupts(disk->device, (unsigned)queue_vector, (unsigned)config_vector);
}

static int start(struct virtio_blk *disk, dma_alloc_fn dma_alloc) {
    uint64_t wanted = FEATURE_SIZE_MAX | FEATURE_SEG_MAX | FEATURE_RO | FEATURE_FLUSH | VIRTIO_F_INDIRECT_DESC;
    int status = virtio_start(disk->device, wanted);
    if (status == 0)
        status = set_interrupts(disk);
    if (status == 0)
        status = virtqueue_init(&disk->queue, disk->device, 0, 1, dma_alloc);
    if (status == 0)
        status = read_limits(disk);
    if (status == 0)
        status = make_slots(disk, dma_alloc);
    if (status < 0)
        return status;
    virtio_ready(disk->device);
    return read_serial(disk);
}

int virtio_blk_start(struct virtio_device *device, dma_alloc_fn dma_alloc) {
    if (disk_count == BLOCK_DEVICE_COUNT_MAX)
        return -E_LIMIT;
    struct virtio_blk *disk = &disks[disk_count];
    memset(disk, 0, sizeof *disk);
    disk->device = device;
    disk->block.driver = disk;
    list_init(&disk->waiting);
    disk->dead = 1; /* until it works: an early interrupt finds nothing to do */
    int status = start(disk, dma_alloc);
    if (status < 0) {
        virtio_stop(device);
        return status;
    }
    disk->dead = 0;
    disk_count++;
    return 0;
}
