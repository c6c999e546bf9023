/*
 * kernel/drivers/virtio.h: virtio 1.2 devices: start-up handshake and split virtqueues, over a table of operations.
 *
 * Promise: nothing that a device writes is trusted: a used index, id or length that cannot be is -E_IO, and the queue
 * is broken for good. A descriptor is visible before the index that publishes it.
 * Called by: virtio_blk.c, entropy.c; the transport (virtio_pci.c) fills the table. Context: interrupts off.
 */
#ifndef DRIVERS_VIRTIO_H
#define DRIVERS_VIRTIO_H

#include <stddef.h>
#include <stdint.h>

enum virtio_type { VIRTIO_BLOCK = 2, VIRTIO_ENTROPY = 4 };
enum { VIRTQUEUE_SIZE_MAX = 256 };

#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_VERSION_1 (1ull << 32)

typedef void *(*dma_alloc_fn)(unsigned page_count); /* zeroed, physically contiguous, in the direct map; or NULL */

struct virtqueue;

struct virtio_device {
    const struct virtio_transport *transport;
    enum virtio_type type;
    uint64_t features; /* negotiated */
};

struct virtio_transport {
    uint8_t (*status)(struct virtio_device *device);
    void (*set_status)(struct virtio_device *device, uint8_t status);
    uint64_t (*features)(struct virtio_device *device);
    void (*set_features)(struct virtio_device *device, uint64_t features);
    int (*read_config)(struct virtio_device *device, unsigned offset, void *to, size_t size); /* -E_RANGE: not there */
    uint16_t (*queue_size_max)(struct virtio_device *device, unsigned index);   /* 0: no such queue */
    int (*queue_enable)(struct virtio_device *device, struct virtqueue *queue); /* sets queue->doorbell */
    int (*set_interrupts)(struct virtio_device *device, unsigned queue_vector, unsigned config_vector);
    void (*stop_dma)(struct virtio_device *device);
};

struct virtq_desc { /* 2.7.5 */
    uint64_t physical;
    uint32_t size;
    uint16_t flags;
    uint16_t next;
};
enum virtq_desc_flags { VIRTQ_NEXT = 1, VIRTQ_WRITE = 2, VIRTQ_INDIRECT = 4 };
_Static_assert(sizeof(struct virtq_desc) == 16, "virtq_desc");

struct virtqueue {
    uint16_t index;
    uint16_t size;
    uint16_t avail_index, used_index; /* free running */
    uint16_t free_head, free_count;
    uint16_t chain_count;             /* the device's now */
    uint8_t interrupts, indirect, broken;
    struct virtq_desc *desc;
    volatile uint16_t *avail; /* flags, index, ring */
    volatile uint16_t *used;  /* flags, index, then pairs of 32 bits: id, written */
    volatile uint16_t *doorbell;
    struct {                  /* by descriptor: our own notes, out of the device's reach */
        void *cookie;         /* of the chain that starts here; NULL: none does */
        uint32_t write_size;  /* the device may say at most this */
        uint16_t desc_count;
        uint16_t next;        /* in the free list or the chain */
    } note[VIRTQUEUE_SIZE_MAX];
};

/* Reset and negotiation. Takes what the device offers of `wanted`; -E_VERSION: not a 1.x device, or it refused. */
int virtio_start(struct virtio_device *device, uint64_t wanted);
void virtio_ready(struct virtio_device *device);  /* after the queues: the device may work */
int virtio_failed(struct virtio_device *device);  /* it wants a reset, had one, or is gone */
void virtio_stop(struct virtio_device *device);   /* reset and no more DMA: buffers are ours again */
int virtio_read_config(struct virtio_device *device, unsigned offset, void *to, size_t size); /* 1, 2, 4 or 8 bytes */

/* interrupts: else the device need not send any (poll). */
int virtqueue_init(struct virtqueue *queue, struct virtio_device *device, unsigned index, int interrupts,
                   dma_alloc_fn dma_alloc);

/* Gives a chain to the device: `flags` says VIRTQ_WRITE or 0, `next` is ours. `chain` is DMA memory and, when the queue
 * is indirect, the device's until taken. -E_AGAIN: no room. The device knows after virtqueue_notify. */
int virtqueue_add(struct virtqueue *queue, struct virtq_desc *chain, unsigned count, void *cookie);
void virtqueue_notify(struct virtqueue *queue);

/* 1: a chain came back; 0: none there; -E_IO: the device lied, the queue is broken. */
int virtqueue_take(struct virtqueue *queue, void **cookie, uint32_t *written);
/* The same, but waits at most that many TSC cycles. For start-up. */
int virtqueue_wait(struct virtqueue *queue, void **cookie, uint32_t *written, uint64_t limit_cycles);
uint64_t virtqueue_waited_cycles(void); /* in all calls of it */

#endif
