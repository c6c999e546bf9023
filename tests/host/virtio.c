/*
 * tests/host/virtio.c: the kernel's virtqueues on the host, with a device that is honest for a while and then lies.
 *
 * Arguments: a seed, the name of a lie. Chains go back and forth; then the device lies, which must break the queue for
 * good and have no other effect. Prints how many chains came back; exit status 1 with a word if that is not so.
 * Built and called by: test_virtio.py.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/virtio.c"

enum { SIZE = 16, TURN_COUNT = 1000, CHAIN_COUNT_MAX = 3, WRITE_SIZE = 512 };

static unsigned long long state;

static unsigned below(unsigned limit) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33) % limit;
}

static void fail(const char *what) {
    printf("%s\n", what);
    exit(1);
}

void panic(const char *template, ...) {
    fail(template);
    abort();
}

void log_print(enum log_level level, const char *template, ...) {
    (void)level;
    (void)template;
}

uint64_t virt_to_phys(const void *address) { return (uintptr_t)address; }

/* --- the device --- */

static struct virtqueue queue;
static volatile uint16_t doorbell;
static uint16_t held[SIZE], held_count, seen_index, used_index;

static uint16_t size_max(struct virtio_device *device, unsigned index) {
    (void)device;
    return index == 0 ? SIZE : 0;
}

static int enable(struct virtio_device *device, struct virtqueue *made) {
    (void)device;
    made->doorbell = &doorbell;
    return 0;
}

static void *memory(unsigned page_count) { return calloc(page_count, PAGE_SIZE); }

static void look(void) {
    for (; seen_index != queue.avail[RING_INDEX]; seen_index++)
        held[held_count++] = queue.avail[RING_START + seen_index % SIZE];
}

static void give(uint32_t id, uint32_t length) {
    volatile uint32_t *element = (volatile uint32_t *)(queue.used + RING_START) + 2 * (used_index % SIZE);
    element[0] = id;
    element[1] = length;
    queue.used[RING_INDEX] = ++used_index;
}

static uint16_t hold_one_less(void) {
    unsigned i = below(held_count);
    uint16_t id = held[i];
    held[i] = held[--held_count];
    return id;
}

/* --- the driver --- */

static char cookies[SIZE][2]; /* by descriptor; [0]: the device has it */

static void submit(void) {
    static struct virtq_desc chains[SIZE][CHAIN_COUNT_MAX];
    uint16_t head = queue.free_head;
    unsigned count = 1 + below(CHAIN_COUNT_MAX);
    if (queue.free_count < count)
        return;
    for (unsigned i = 0; i < count; i++)
        chains[head][i] = (struct virtq_desc){4096, i == 0 ? WRITE_SIZE : 16, i == 0 ? VIRTQ_WRITE : 0, 0};
    if (virtqueue_add(&queue, chains[head], count, cookies[head]) != 0)
        fail("a chain for which there is room is not taken");
    cookies[head][0] = 1;
    virtqueue_notify(&queue);
}

static unsigned take_all(void) {
    void *cookie;
    uint32_t written;
    unsigned count = 0;
    while (virtqueue_take(&queue, &cookie, &written) > 0) {
        char *mark = cookie;
        if (!*mark || written > WRITE_SIZE)
            fail("a chain came back that was not out, or with more than it had room for");
        *mark = 0;
        count++;
    }
    return count;
}

static void lie(const char *what) {
    if (strcmp(what, "index") == 0) { /* more than are out */
        used_index = (uint16_t)(used_index + held_count + 1 + below(1000));
        queue.used[RING_INDEX] = used_index;
    } else if (strcmp(what, "id") == 0) {
        give(SIZE + below(1 << 30), 0);
    } else if (strcmp(what, "twice") == 0) { /* a descriptor that starts no chain which is out */
        uint32_t id = 0;
        while (queue.note[id].cookie != NULL)
            id++;
        give(id, 0);
    } else if (strcmp(what, "length") == 0) {
        give(held[0], WRITE_SIZE + 1 + below(1 << 30));
    }
}

int main(int count, char **words) {
    static const struct virtio_transport transport = {.queue_size_max = size_max, .queue_enable = enable};
    struct virtio_device device = {.transport = &transport};
    if (count != 3)
        return 2;
    state = strtoull(words[1], NULL, 10);
    if (virtqueue_init(&queue, &device, 0, 1, memory) != 0)
        fail("no queue");
    unsigned taken = 0;
    for (unsigned turn = 0; turn < TURN_COUNT; turn++) {
        for (unsigned i = below(4); i > 0; i--)
            submit();
        look();
        for (unsigned i = below(4); i > 0 && held_count > 0; i--)
            give(hold_one_less(), below(WRITE_SIZE + 1));
        taken += take_all();
    }
    while (held_count == 0 || queue.free_count == 0) {
        submit();
        look();
        if (queue.free_count == 0)
            give(hold_one_less(), 0);
        taken += take_all();
    }
    lie(words[2]);
    struct virtqueue before = queue;
    void *cookie = NULL;
    uint32_t written;
    if (virtqueue_take(&queue, &cookie, &written) != -E_IO || cookie != NULL)
        fail("the lie is believed");
    give(held[0], 0);
    if (virtqueue_take(&queue, &cookie, &written) != -E_IO || cookie != NULL)
        fail("the queue goes on after the lie");
    before.broken = 1;
    if (memcmp(&before, &queue, sizeof queue) != 0)
        fail("the lie had an effect");
    printf("%u\n", taken);
    return 0;
}
