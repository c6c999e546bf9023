/*
 * kernel/drivers/entropy.c: random bytes (entropy.h): a 64-byte state to which all sources are hashed, read in
 * counter mode.
 *
 * Promise: the state moves on after each read, one way: no output comes twice, and an old one cannot be had from a
 * later state. A missing source only adds nothing; the time stamp counter and the wall clock are always there.
 * Called by: store (ids), proc (random); drivers.c gives the device. Context: interrupts off. entropy_init after
 * clock_init and drivers_init; again whenever fresh randomness is wanted.
 */
#include "drivers/entropy.h"

#include "arch/x86_64/arch.h"
#include "drivers/clock.h"
#include "drivers/entropy_device.h"
#include "lib/error.h"
#include "lib/lib.h"

enum { STATE_SIZE = 64, RANDOM_WORD_COUNT = 4, DEVICE_READ_SIZE = 64, PAGE_SIZE = 4096 };
enum purpose { PURPOSE_OUTPUT, PURPOSE_NEXT };
#define DEVICE_LIMIT_CYCLES 50000000ull /* some 20 ms */

static struct {
    uint8_t state[STATE_SIZE];
    uint64_t counter;
} pool;

static struct virtio_device *source;
static struct virtqueue queue;
static uint8_t *device_bytes; /* a DMA page: what is read, then the descriptor */
static int device_is_busy;    /* it still has the buffer */

static void mix(const void *data, size_t size) {
    struct {
        uint8_t state[STATE_SIZE];
        uint8_t data[DEVICE_READ_SIZE];
    } input;
    check(size <= sizeof input.data);
    memcpy(input.state, pool.state, STATE_SIZE);
    memcpy(input.data, data, size);
    blake2b(pool.state, STATE_SIZE, &input, STATE_SIZE + size);
}

static void mix_cpu(void) {
    uint64_t words[RANDOM_WORD_COUNT + 1] = {0};
    for (unsigned i = 0; i < RANDOM_WORD_COUNT; i++)
        (void)arch_random(&words[i]); /* none: a zero adds nothing */
    words[RANDOM_WORD_COUNT] = arch_cycles();
    mix(words, sizeof words);
}

int entropy_device_start(struct virtio_device *device, dma_alloc_fn dma_alloc) {
    if (source)
        return -E_BUSY;
    int status = virtio_start(device, 0);
    if (status == 0)
        status = virtqueue_init(&queue, device, 0, 0, dma_alloc);
    if (status == 0 && !(device_bytes = dma_alloc(1)))
        status = -E_NOMEM;
    if (status < 0) {
        virtio_stop(device);
        return status;
    }
    virtio_ready(device);
    source = device;
    return 0;
}

/* One polled read; a device that is late is asked again next time. */
static void mix_device(void) {
    if (!source)
        return;
    if (!device_is_busy) {
        struct virtq_desc *chain = (struct virtq_desc *)(device_bytes + DEVICE_READ_SIZE);
        *chain = (struct virtq_desc){virt_to_phys(device_bytes), DEVICE_READ_SIZE, VIRTQ_WRITE, 0};
        if (virtqueue_add(&queue, chain, 1, device_bytes) < 0)
            return;
        device_is_busy = 1;
        virtqueue_notify(&queue);
    }
    void *cookie;
    uint32_t written;
    if (virtqueue_wait(&queue, &cookie, &written, DEVICE_LIMIT_CYCLES) <= 0)
        return;
    device_is_busy = 0;
    mix(device_bytes, written);
    memset(device_bytes, 0, DEVICE_READ_SIZE);
}

void entropy_init(void) {
    uint64_t times[2] = {clock_wall_ns(), clock_ns()};
    mix(times, sizeof times);
    mix_cpu();
    mix_device();
}

static void derive(uint8_t *hash, enum purpose purpose) {
    struct {
        uint8_t state[STATE_SIZE];
        uint64_t counter;
        uint64_t purpose;
    } input;
    memcpy(input.state, pool.state, STATE_SIZE);
    input.counter = pool.counter++;
    input.purpose = purpose;
    blake2b(hash, STATE_SIZE, &input, sizeof input);
}

void entropy_read(void *buffer, size_t size) {
    uint8_t *to = buffer;
    mix_cpu();
    while (size > 0) {
        uint8_t block[STATE_SIZE];
        size_t count = size < STATE_SIZE ? size : STATE_SIZE;
        derive(block, PURPOSE_OUTPUT);
        memcpy(to, block, count);
        to += count;
        size -= count;
    }
    uint8_t next[STATE_SIZE];
    derive(next, PURPOSE_NEXT);
    memcpy(pool.state, next, STATE_SIZE);
}
