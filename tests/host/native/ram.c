/*
 * tests/host/native/ram.c: ram.h's promises.
 *
 * A flush makes durable what had completed when the flush was submitted, and nothing else.
 */
#include "ram.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef __SANITIZE_ADDRESS__
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

/* --- arena --- */

enum { ARENA_SIZE = 1 << 30 };
static uint8_t *arena;
static size_t arena_used;

void *arena_take(size_t size) {
    if (arena == NULL && (arena = malloc(ARENA_SIZE)) == NULL)
        abort();
    size_t at = (arena_used + 15) & ~(size_t)15;
    if (at + size > ARENA_SIZE)
        fail("the arena is full");
    arena_used = at + size;
    return memset(arena + at, 0, size);
}

size_t arena_mark(void) { return arena_used; }
void arena_release(size_t mark) { arena_used = mark; }

/* --- chance --- */

static uint64_t chance_state = 1;

void chance_seed(uint64_t seed) { chance_state = seed * 2 + 1; }

static uint64_t chance_word(void) {
    chance_state ^= chance_state << 13;
    chance_state ^= chance_state >> 7;
    chance_state ^= chance_state << 17;
    return chance_state * 0x2545f4914f6cdd1dull;
}

uint64_t chance(uint64_t bound) { return (chance_word() >> 16) % bound; }

static void random_bytes(void *buffer, size_t size) {
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)buffer)[i] = (uint8_t)chance(256);
}

/* --- pages of the store: with a gap behind each, which nobody may touch --- */

enum { POOL_COUNT = 4096, POOL_STRIDE = 2 * BLOCK_SIZE, RESERVE_COUNT = 256 };
unsigned ram_page_limit = POOL_COUNT;
static uint8_t *pool;
static uint32_t pool_free[POOL_COUNT];
static unsigned pool_free_count, pool_fresh; /* those from pool_fresh on were never given out */

static void *page_alloc(int urgent) {
    if (pool_fresh - pool_free_count >= ram_page_limit + (urgent ? RESERVE_COUNT : 0))
        return NULL;
    if (pool == NULL) {
        pool = aligned_alloc(BLOCK_SIZE, (size_t)POOL_COUNT * POOL_STRIDE);
        ASAN_POISON_MEMORY_REGION(pool, (size_t)POOL_COUNT * POOL_STRIDE);
    }
    if (pool_free_count == 0 && pool_fresh == POOL_COUNT)
        return NULL;
    uint32_t index = pool_free_count > 0 ? pool_free[--pool_free_count] : pool_fresh++;
    uint8_t *page = pool + (size_t)index * POOL_STRIDE;
    ASAN_UNPOISON_MEMORY_REGION(page, BLOCK_SIZE);
    return page;
}

static void page_free(void *page) {
    ASAN_POISON_MEMORY_REGION(page, BLOCK_SIZE);
    pool_free[pool_free_count++] = (uint32_t)((size_t)((uint8_t *)page - pool) / POOL_STRIDE);
}

static void pool_reset(void) {
    if (pool != NULL)
        ASAN_POISON_MEMORY_REGION(pool, (size_t)pool_fresh * POOL_STRIDE);
    pool_free_count = pool_fresh = 0;
}

/* --- blocks --- */

struct sheet zero_sheet;

struct sheet *sheet_new(const void *data) {
    struct sheet *sheet = arena_take(sizeof *sheet);
    memcpy(sheet->data, data, BLOCK_SIZE);
    return sheet;
}

const uint8_t *sheet_hash(struct sheet *sheet) {
    if (!sheet->hashed)
        blake2b(sheet->hash, HASH_SIZE, sheet->data, BLOCK_SIZE);
    sheet->hashed = 1;
    return sheet->hash;
}

/* --- disks --- */

struct disk disks[DISK_COUNT];

struct sheet **disk_copy(struct sheet *const *blocks, uint64_t block_count) {
    struct sheet **copy = arena_take(block_count * sizeof *copy);
    memcpy(copy, blocks, block_count * sizeof *copy);
    return copy;
}

void disk_make(unsigned index, uint64_t block_count) {
    struct disk *disk = &disks[index];
    disk->block_count = block_count;
    disk->volatile_count = 0;
    disk->now = arena_take(block_count * sizeof *disk->now);
    for (uint64_t block = 0; block < block_count; block++)
        disk->now[block] = &zero_sheet;
    disk->base = disk_copy(disk->now, block_count);
}

static void put(struct disk *disk, uint64_t block, const void *data, size_t size) {
    uint8_t page[BLOCK_SIZE] = {0};
    memcpy(page, data, size);
    disk->now[block] = disk->base[block] = sheet_new(page);
}

void disk_format(unsigned index) {
    struct disk *disk = &disks[index];
    struct header_disk header = {.magic = HEADER_MAGIC, .version = 1, .ring_count = RING_COUNT,
                                 .block_count = disk->block_count, .ring_first = RING_FIRST_BLOCK,
                                 .ring_stride = (disk->block_count - RING_FIRST_BLOCK) / RING_COUNT};
    random_bytes(header.store_id, sizeof header.store_id);
    blake2b(header.hash, sizeof header.hash, &header, offsetof(struct header_disk, hash));
    struct root_disk root = {.magic = ROOT_MAGIC, .version = 1, .record_version = 1, .sequence = 1, .generation = 1,
                             .tree_height = 1, .meta_height = 1, .block_count = disk->block_count,
                             .free_count = disk->block_count - FIXED_BLOCK_COUNT, .alloc_next = RING_FIRST_BLOCK,
                             .retain_count = RETAIN_COUNT_DEFAULT};
    memcpy(root.store_id, header.store_id, STORE_ID_SIZE);
    blake2b(root.hash, sizeof root.hash, &root, offsetof(struct root_disk, hash));
    put(disk, HEADER_BLOCK, &header, sizeof header);
    put(disk, HEADER_COPY_BLOCK, &header, sizeof header);
    put(disk, RING_FIRST_BLOCK + header.ring_stride, &root, sizeof root);
}

/* --- requests --- */

enum { PENDING_MAX = 4096 };
static struct pending {
    struct store_io *io;
    uint64_t submitted_at;
} pending[PENDING_MAX];
static unsigned pending_count;
static uint64_t event_count, time_ns;
int ram_synchronous, ram_verbose;
uint64_t ram_write_count, ram_flush_count;
void (*ram_before_flush)(void), (*ram_meanwhile)(void);

static void submit_write(struct disk *disk, const struct store_io *io) {
    for (uint32_t i = 0; i < io->page_count; i++) {
        if (disk->volatile_count == VOLATILE_MAX)
            fail("more writes than %d between two flushes", VOLATILE_MAX);
        uint64_t block = io->sector / SECTORS_PER_BLOCK + i;
        disk->volatile_write[disk->volatile_count++] = (struct write){block, sheet_new(io->page[i]), io, 0};
        ram_write_count++;
    }
}

/* The page was the disk's until now: whoever changed it wrote something else than was asked for. */
static void complete_write(struct disk *disk, const struct store_io *io) {
    for (unsigned i = 0; i < disk->volatile_count; i++) {
        struct write *write = &disk->volatile_write[i];
        if (write->running != io)
            continue;
        if (memcmp(write->sheet->data, io->page[write->block - io->sector / SECTORS_PER_BLOCK], BLOCK_SIZE) != 0)
            fail("block %lu changed while it was written", (unsigned long)write->block);
        write->running = NULL;
        write->completed_at = event_count;
        disk->now[write->block] = write->sheet;
    }
}

static void complete_flush(struct disk *disk, uint64_t submitted_at) {
    unsigned left = 0;
    if (ram_before_flush != NULL)
        ram_before_flush();
    for (unsigned i = 0; i < disk->volatile_count; i++) {
        struct write *write = &disk->volatile_write[i];
        if (write->running == NULL && write->completed_at <= submitted_at)
            disk->base[write->block] = write->sheet;
        else
            disk->volatile_write[left++] = *write;
    }
    disk->volatile_count = left;
    ram_flush_count++;
}

static void complete(struct pending entry) {
    struct store_io *io = entry.io;
    struct disk *disk = &disks[io->disk];
    event_count++;
    for (uint32_t i = 0; io->op == STORE_READ && i < io->page_count; i++)
        memcpy(io->page[i], disk->now[io->sector / SECTORS_PER_BLOCK + i]->data, BLOCK_SIZE);
    if (io->op == STORE_WRITE)
        complete_write(disk, io);
    if (io->op == STORE_FLUSH)
        complete_flush(disk, entry.submitted_at);
    io->done(io, 0);
}

static int submit(struct store_io *io) {
    if (io->disk >= DISK_COUNT || (io->op != STORE_READ && io->disk != NEAR))
        fail("a request of kind %d for disk %u", (int)io->op, io->disk);
    struct disk *disk = &disks[io->disk];
    if (io->op != STORE_FLUSH && (io->page_count == 0 || io->page_count > STORE_IO_PAGES_MAX ||
                                  io->sector / SECTORS_PER_BLOCK + io->page_count > disk->block_count))
        return -E_INVAL;
    if (pending_count == PENDING_MAX)
        fail("%d requests are pending", PENDING_MAX);
    struct pending entry = {io, event_count};
    if (io->op == STORE_WRITE)
        submit_write(disk, io);
    if (ram_synchronous)
        complete(entry);
    else
        pending[pending_count++] = entry;
    return 0;
}

int ram_complete_one(void) {
    if (pending_count == 0)
        return 0;
    unsigned index = (unsigned)chance(pending_count);
    struct pending entry = pending[index];
    memmove(&pending[index], &pending[index + 1], (--pending_count - index) * sizeof pending[0]);
    complete(entry);
    return 1;
}

/* --- the environment --- */

static unsigned polls_in_vain;

static void poll(void) {
    time_ns += 1000000;
    polls_in_vain = ram_complete_one() ? 0 : polls_in_vain + 1;
    if (polls_in_vain > 100000)
        fail("store_open waits for nothing");
}

static void say_notice(const char *text) {
    if (ram_verbose)
        fprintf(stderr, "notice: %s\n", text);
}

static void wake(const void *key) { (void)key; }
static uint64_t now_ns(void) { return time_ns += 1000; }

/* Only in programs that are linked with it (Makefile): the others refuse compressed pages. */
__attribute__((weak)) int zstd_unpack(void *to, size_t size, const void *from, size_t from_size);

struct store_env ram_env = {.submit = submit, .poll = poll, .page_alloc = page_alloc, .page_free = page_free,
                            .wake = wake, .now_ns = now_ns, .random = random_bytes, .notice = say_notice,
                            .unpack = zstd_unpack};

_Noreturn void panic(const char *template, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, template);
    vsnprintf(text, sizeof text, template, arguments);
    va_end(arguments);
    fail("panic: %s", text);
}

void ram_power_off(void) {
    pending_count = 0;
    polls_in_vain = 0;
    pool_reset();
}

struct store_retention ram_retention;

int ram_open(const uint8_t *trust) {
    struct store_options options = {.record_version_max = 1, .trust_given = trust != NULL,
                                    .retention_given = ram_retention.count != 0, .retention = ram_retention};
    if (trust != NULL)
        memcpy(options.trust, trust, ROOT_HASH_SIZE);
    ram_env.disk_count = DISK_COUNT;
    for (unsigned i = 0; i < DISK_COUNT; i++)
        ram_env.disk_sectors[i] = disks[i].block_count * SECTORS_PER_BLOCK;
    return store_open(&ram_env, &options);
}

/* Longer than a store waits before it asks again. */
enum { IDLE_ROUNDS_MAX = 5000 };

int ram_wait_step(unsigned *rounds) {
    time_ns += 1000000;
    int more = store_work(4);
    more |= ram_complete_one();
    *rounds = more || pending_count != 0 ? 0 : *rounds + 1;
    return *rounds < IDLE_ROUNDS_MAX;
}

/* --- pages --- */

void page_fill(void *page, uint64_t value) {
    for (unsigned i = 0; i < BLOCK_SIZE / 8; i++)
        ((uint64_t *)page)[i] = value == 0 ? 0 : value * 0x9e3779b97f4a7c15ull + i;
}

int page_holds(const void *page, uint64_t value) {
    for (unsigned i = 0; i < BLOCK_SIZE / 8; i++)
        if (((const uint64_t *)page)[i] != (value == 0 ? 0 : value * 0x9e3779b97f4a7c15ull + i))
            return 0;
    return 1;
}

static void fetched(struct store_fetch *fetch, int status) { *(int *)fetch->owner = status; }

static int lookup(struct page_key key, struct block_ptr_disk *pointer) {
    const void *wait_key;
    unsigned rounds = 0;
    int status;
    while (((status = store_lookup(key, pointer, &wait_key)) == -E_AGAIN || status == -E_NOMEM) && ram_wait_step(&rounds))
        continue;
    return status;
}

int ram_read(struct page_key key, void *page) {
    struct block_ptr_disk pointer;
    unsigned rounds = 0;
    int status = lookup(key, &pointer);
    if (status != 0)
        return status;
    memset(page, 0, BLOCK_SIZE);
    if (!ptr_present(&pointer))
        return 0;
    int result = 1;
    struct store_fetch fetch = {.pointer = pointer, .page = page, .done = fetched, .owner = &result};
    status = store_fetch(&fetch);
    if (status != 0 || result != 1)
        fail("store_fetch: %d, done before it returned: %d", status, result != 1);
    while (result == 1 && ram_wait_step(&rounds))
        continue;
    return result == 1 ? -E_AGAIN : result;
}

/* --- commits --- */

static struct {
    const struct change *change;
    uint64_t **page;
    unsigned count, next, written;
} staged;

static int next_page(struct store_commit *commit, struct store_commit_page *page) {
    (void)commit;
    if (staged.next == staged.count)
        return 0;
    page->key = staged.change[staged.next].key;
    page->data = staged.page[staged.next++];
    return 1;
}

static void written(struct store_commit *commit, struct store_commit_page *page) {
    (void)commit;
    (void)page;
    staged.written++;
}

static void again(struct store_commit *commit) {
    (void)commit;
    staged.next = staged.written = 0;
}

static void commit_done(struct store_commit *commit, int status) { *(int *)commit->owner = status; }

/* The caller of a commit has looked its pages up before. */
static void stage(const struct change *change, unsigned count) {
    struct block_ptr_disk pointer;
    staged.change = change;
    staged.page = arena_take(count * sizeof *staged.page);
    staged.count = count;
    staged.next = staged.written = 0;
    for (unsigned i = 0; i < count; i++) {
        lookup(change[i].key, &pointer);
        size_t at = (size_t)arena_take(2 * BLOCK_SIZE);
        staged.page[i] = (uint64_t *)((at + BLOCK_SIZE - 1) & ~(size_t)(BLOCK_SIZE - 1));
        page_fill(staged.page[i], change[i].value);
    }
}

struct commit_words ram_words;

int ram_commit(uint64_t generation, const struct change *change, unsigned count) {
    int result = 1;
    unsigned idle_rounds = 0;
    stage(change, count);
    const struct commit_words *words = &ram_words;
    uint64_t wall_ns = words->wall_ns != 0 ? words->wall_ns : generation * 1000;
    struct store_commit commit = {.generation = generation, .wall_ns = wall_ns, .mono_ns = generation * 10,
                                  .tag = words->tag, .tag_generation = words->tag_generation,
                                  .untag_generation = words->untag_generation, .flags = words->flags,
                                  .page_count = count, .record_version = 1, .next = next_page, .again = again, .written = written,
                                  .done = commit_done, .owner = &result};
    int status = store_commit_start(&commit);
    if (status != 0)
        return status;
    while (result == 1) {
        if (ram_meanwhile != NULL)
            ram_meanwhile();
        int more = store_work(1 + (unsigned)chance(20));
        int completed = chance(4) != 0 ? ram_complete_one() : 0;
        idle_rounds = more || completed || pending_count != 0 ? 0 : idle_rounds + 1;
        time_ns += 1000000;
        if (idle_rounds > IDLE_ROUNDS_MAX)
            return -E_AGAIN;
    }
    if (result == -E_NOSPACE && store.broken)
        fail("a commit that had begun finds no space");
    if (result == 0 && staged.written != count)
        fail("a commit wrote %u of %u pages", staged.written, count);
    return result;
}
