/*
 * kernel/drivers/virtio.c: the virtio 1.2 handshake (3.1.1) and split virtqueues (2.7); see virtio.h.
 *
 * Promise: ring memory that the device writes is read once, through volatile, and checked before use. The free list
 * and the notes on chains are private, so a lying device can end its own queue and nothing else.
 * Called by: virtio_blk.c, entropy.c. Context: interrupts off.
 */
#include "drivers/virtio.h"

#include "arch/x86_64/arch.h"
#include "lib/error.h"
#include "lib/lib.h"

enum status_bits {
    STATUS_ACKNOWLEDGE = 1,
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
    STATUS_NEEDS_RESET = 64,
    STATUS_FAILED = 128,
};
enum {
    AVAIL_NO_INTERRUPT = 1,
    USED_NO_NOTIFY = 1,
    RING_FLAGS = 0,
    RING_INDEX = 1,
    RING_START = 2,
    RESET_POLL_COUNT_MAX = 1000000, /* about a second of register reads */
    CONFIG_WORD_COUNT_MAX = 2,
    PAGE_SIZE = 4096,
};

static int reset(struct virtio_device *device) {
    device->transport->set_status(device, 0);
    for (unsigned i = 0; i < RESET_POLL_COUNT_MAX; i++)
        if (device->transport->status(device) == 0)
            return 0;
    return -E_IO;
}

static void add_status(struct virtio_device *device, uint8_t bits) {
    device->transport->set_status(device, device->transport->status(device) | bits);
}

int virtio_start(struct virtio_device *device, uint64_t wanted) {
    int status = reset(device);
    if (status < 0)
        return status;
    add_status(device, STATUS_ACKNOWLEDGE);
    add_status(device, STATUS_DRIVER);
    uint64_t offered = device->transport->features(device);
    device->features = offered & (wanted | VIRTIO_F_VERSION_1);
    if (device->features & VIRTIO_F_VERSION_1) {
        device->transport->set_features(device, device->features);
        add_status(device, STATUS_FEATURES_OK);
        if (device->transport->status(device) & STATUS_FEATURES_OK)
            return 0;
    }
    add_status(device, STATUS_FAILED);
    return -E_VERSION;
}

void virtio_ready(struct virtio_device *device) {
    add_status(device, STATUS_DRIVER_OK);
}

int virtio_failed(struct virtio_device *device) {
    uint8_t status = device->transport->status(device);
    return (status & (STATUS_NEEDS_RESET | STATUS_FAILED)) || !(status & STATUS_DRIVER_OK);
}

void virtio_stop(struct virtio_device *device) {
    if (reset(device) < 0)
        notice("virtio: a device of type %d does not reset", (int)device->type);
    device->transport->stop_dma(device);
}

int virtio_read_config(struct virtio_device *device, unsigned offset, void *to, size_t size) {
    return device->transport->read_config(device, offset, to, size);
}

static void make_free_list(struct virtqueue *queue) {
    queue->free_head = 0;
    queue->free_count = queue->size;
    for (unsigned i = 0; i < queue->size; i++)
        queue->note[i].next = (uint16_t)(i + 1);
}

int virtqueue_init(struct virtqueue *queue, struct virtio_device *device, unsigned index, int interrupts,
                   dma_alloc_fn dma_alloc) {
    unsigned size = device->transport->queue_size_max(device, index);
    if (size == 0 || (size & (size - 1)))
        return -E_RANGE;
    if (size > VIRTQUEUE_SIZE_MAX)
        size = VIRTQUEUE_SIZE_MAX;
    size_t avail_offset = size * sizeof(struct virtq_desc);
    size_t used_offset = (avail_offset + 6 + 2 * size + 3) & ~(size_t)3; /* 2.7: aligned to 4 */
    size_t total_size = used_offset + 6 + 8 * size;
    uint8_t *memory = dma_alloc((unsigned)((total_size + PAGE_SIZE - 1) / PAGE_SIZE));
    if (!memory)
        return -E_NOMEM;
    memset(queue, 0, sizeof *queue);
    queue->index = (uint16_t)index;
    queue->size = (uint16_t)size;
    queue->interrupts = interrupts != 0;
    queue->indirect = (device->features & VIRTIO_F_INDIRECT_DESC) != 0;
    queue->desc = (struct virtq_desc *)memory;
    queue->avail = (volatile uint16_t *)(memory + avail_offset);
    queue->used = (volatile uint16_t *)(memory + used_offset);
    queue->avail[RING_FLAGS] = interrupts ? 0 : AVAIL_NO_INTERRUPT;
    make_free_list(queue);
    return device->transport->queue_enable(device, queue);
}

/* Makes the flags of a chain: all but the last go on; `next` is set by the caller for a direct chain. */
static uint16_t chain_flags(const struct virtq_desc *desc, int is_last) {
    return (uint16_t)((desc->flags & VIRTQ_WRITE) | (is_last ? 0 : VIRTQ_NEXT));
}

/* The whole chain is a table of its own: one descriptor in the ring. */
static void fill_indirect(struct virtqueue *queue, struct virtq_desc *chain, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        chain[i].flags = chain_flags(&chain[i], i + 1 == count);
        chain[i].next = (uint16_t)(i + 1 == count ? 0 : i + 1);
    }
    struct virtq_desc *desc = &queue->desc[queue->free_head];
    desc->physical = virt_to_phys(chain);
    desc->size = (uint32_t)(count * sizeof *chain);
    desc->flags = VIRTQ_INDIRECT;
    desc->next = 0;
}

static void fill_direct(struct virtqueue *queue, const struct virtq_desc *chain, unsigned count) {
    uint16_t at = queue->free_head;
    for (unsigned i = 0; i < count; i++) {
        struct virtq_desc *desc = &queue->desc[at];
        desc->physical = chain[i].physical;
        desc->size = chain[i].size;
        desc->flags = chain_flags(&chain[i], i + 1 == count);
        at = queue->note[at].next;
        desc->next = i + 1 == count ? 0 : at;
    }
}

/* Takes desc_count descriptors from the head of the free list, in its order. */
static uint16_t take_descriptors(struct virtqueue *queue, uint16_t desc_count) {
    uint16_t head = queue->free_head;
    for (uint16_t i = 0; i < desc_count; i++)
        queue->free_head = queue->note[queue->free_head].next;
    queue->free_count = (uint16_t)(queue->free_count - desc_count);
    return head;
}

static void free_descriptors(struct virtqueue *queue, uint16_t head, uint16_t desc_count) {
    uint16_t last = head;
    for (uint16_t i = 1; i < desc_count; i++)
        last = queue->note[last].next;
    queue->note[last].next = queue->free_head;
    queue->free_head = head;
    queue->free_count = (uint16_t)(queue->free_count + desc_count);
}

int virtqueue_add(struct virtqueue *queue, struct virtq_desc *chain, unsigned count, void *cookie) {
    check(count > 0 && count <= queue->size && cookie); /* 2.7.5.3.1: that holds for indirect chains, too */
    if (queue->broken)
        return -E_IO;
    uint16_t desc_count = (uint16_t)(queue->indirect ? 1 : count);
    if (desc_count > queue->free_count)
        return -E_AGAIN;
    uint32_t write_size = 0;
    for (unsigned i = 0; i < count; i++)
        write_size += chain[i].flags & VIRTQ_WRITE ? chain[i].size : 0;
    if (queue->indirect)
        fill_indirect(queue, chain, count);
    else
        fill_direct(queue, chain, count);
    uint16_t head = take_descriptors(queue, desc_count);
    queue->note[head].cookie = cookie;
    queue->note[head].write_size = write_size;
    queue->note[head].desc_count = desc_count;
    queue->avail[RING_START + queue->avail_index % queue->size] = head;
    queue->avail_index++;
    queue->chain_count++;
    arch_barrier_compiler(); /* the CPU keeps stores in order */
    queue->avail[RING_INDEX] = queue->avail_index;
    return 0;
}

void virtqueue_notify(struct virtqueue *queue) {
    arch_barrier_full(); /* 2.7.13.4: the index is visible before the flag is read, or both sides may wait */
    if (!(queue->used[RING_FLAGS] & USED_NO_NOTIFY))
        *queue->doorbell = queue->index;
}

static int broken(struct virtqueue *queue, const char *what, uint32_t value) {
    queue->broken = 1;
    notice("virtio: queue %u: impossible used %s %u", queue->index, what, value);
    return -E_IO;
}

int virtqueue_take(struct virtqueue *queue, void **cookie, uint32_t *written) {
    if (queue->broken)
        return -E_IO;
    uint16_t device_index = queue->used[RING_INDEX];
    uint16_t ready_count = (uint16_t)(device_index - queue->used_index);
    if (ready_count == 0)
        return 0;
    if (ready_count > queue->chain_count)
        return broken(queue, "index", device_index);
    arch_barrier_compiler(); /* the CPU keeps loads in order */
    volatile uint32_t *ring = (volatile uint32_t *)(queue->used + RING_START);
    volatile uint32_t *element = ring + 2 * (queue->used_index % queue->size);
    uint32_t id = element[0];
    uint32_t length = element[1];
    if (id >= queue->size || !queue->note[id].cookie)
        return broken(queue, "id", id);
    if (length > queue->note[id].write_size)
        return broken(queue, "length", length);
    *cookie = queue->note[id].cookie;
    *written = length;
    queue->note[id].cookie = NULL;
    queue->used_index++;
    queue->chain_count--;
    free_descriptors(queue, (uint16_t)id, queue->note[id].desc_count);
    return 1;
}

static uint64_t waited_cycles;

uint64_t virtqueue_waited_cycles(void) { return waited_cycles; }

int virtqueue_wait(struct virtqueue *queue, void **cookie, uint32_t *written, uint64_t limit_cycles) {
    uint64_t start_cycles = arch_cycles();
    int status;
    while ((status = virtqueue_take(queue, cookie, written)) == 0 && arch_cycles() - start_cycles < limit_cycles)
        __asm__ volatile("pause");
    waited_cycles += arch_cycles() - start_cycles;
    return status;
}
