/*
 * tests/host/harness.c: the store on the host, over disks in memory that forget, reorder and tear what was not flushed.
 *
 * Promise: one command a line on stdin, one answer a line on stdout ("ok ..." or "err CODE"); the same seed gives the
 * same run.
 * Used by: tests/host/store_host.py, which builds it with sanitizers; nothing of it is in the kernel.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lib/error.h"
#include "lib/lib.h"
#include "store/internal.h" /* for greedy and next: alloc_next alone is set behind the store's back */

enum { DISK_COUNT = 4, STAGED_MAX = 1 << 16, SECTOR_BYTES = 512 };
enum { FILL_BUDGET = 64 }; /* a walk ends and another one begins in the same call, not by chance only */

/* --- memory --- */

static size_t pages_out, page_limit = SIZE_MAX;
enum { RESERVE_PAGES = 256, PAGES_MAX = 1 << 18 };
static void *pages[PAGES_MAX]; /* all that are out: a power cut takes them away */

static uint64_t starve, ask_count; /* one in so many is refused that need not be granted; 0: none */

static void *page_alloc(int urgent) {
    if (pages_out >= page_limit + (urgent ? RESERVE_PAGES : 0))
        return NULL;
    if (!urgent && starve != 0 && ++ask_count % starve == 0)
        return NULL;
    void *page = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
    memset(page, 0xaa, BLOCK_SIZE);
    if (pages_out == PAGES_MAX)
        abort();
    pages[pages_out++] = page;
    return page;
}

static void page_free(void *page) {
    size_t at = pages_out;
    while (pages[--at] != page)
        continue;
    pages[at] = pages[--pages_out];
    memset(page, 0x55, BLOCK_SIZE);
    free(page);
}

/* --- randomness, repeatable --- */

static uint64_t seed = 1;
static uint64_t random_word(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1dull;
}

static void random_bytes(void *buffer, size_t size) {
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)buffer)[i] = (uint8_t)(random_word() >> 32);
}

/* --- disks --- */

struct unflushed {
    struct unflushed *next;
    uint64_t sector;
    uint8_t data[BLOCK_SIZE];
};

struct disk {
    uint8_t *now;     /* what a read gives */
    uint8_t *durable; /* what a power cut leaves for certain */
    uint64_t block_count;
    struct unflushed *unflushed; /* newest first */
    unsigned fail_reads, fail_writes, fail_flushes; /* so many of the next fail */
    unsigned pass_flushes;                          /* so many pass before those that fail */
    uint64_t bad_first, bad_count;                  /* blocks that take no write */
    int dead, hangs; /* fails all; answers nothing */
    uint64_t delay_ns;
};

struct pending {
    struct pending *next;
    struct store_io *io;
    uint64_t start_ns;
};

static struct disk disks[DISK_COUNT];
static struct pending *pending;
static size_t pending_count;
static uint64_t completion_count, write_count, cut_after = UINT64_MAX;
static int ordered, synchronous, greedy;
static int is_filling; /* since the last open; then it goes on in commits, too */
static int persistent; /* commits that fail are made anew */
static uint64_t time_ns;

static uint64_t now_ns(void) { return time_ns += 1000; }

static int is_cut(void) { return completion_count >= cut_after; }

static void disk_free(struct disk *disk) {
    while (disk->unflushed != NULL) {
        struct unflushed *next = disk->unflushed->next;
        free(disk->unflushed);
        disk->unflushed = next;
    }
    free(disk->now);
    free(disk->durable);
    memset(disk, 0, sizeof *disk);
}

static void remember(struct disk *disk, uint64_t sector, const void *data) {
    struct unflushed *write = malloc(sizeof *write);
    write->sector = sector;
    memcpy(write->data, data, BLOCK_SIZE);
    write->next = disk->unflushed;
    disk->unflushed = write;
}

static void settle_all(struct disk *disk) {
    while (disk->unflushed != NULL) {
        struct unflushed *write = disk->unflushed;
        disk->unflushed = write->next;
        free(write);
    }
    memcpy(disk->durable, disk->now, disk->block_count * BLOCK_SIZE);
}

/*
 * A flush takes what was written; copying only what changed. One that fails takes some and forgets the others: reads
 * still give them, the next flush succeeds, and a power cut takes them (as Linux does to a file whose fsync failed).
 */
static void flush(struct disk *disk, int fails) {
    for (struct unflushed *write = disk->unflushed; write != NULL; write = write->next)
        if (!fails || random_word() % 2)
            memcpy(disk->durable + write->sector * SECTOR_BYTES, disk->now + write->sector * SECTOR_BYTES, BLOCK_SIZE);
    while (disk->unflushed != NULL) {
        struct unflushed *next = disk->unflushed->next;
        free(disk->unflushed);
        disk->unflushed = next;
    }
}

static int take_failure(unsigned *count) {
    if (*count == 0)
        return 0;
    --*count;
    return 1;
}

static int is_bad(const struct disk *disk, const struct store_io *io) {
    uint64_t first = io->sector / SECTORS_PER_BLOCK;
    return io->op == STORE_WRITE && first < disk->bad_first + disk->bad_count && first + io->page_count > disk->bad_first;
}

static int perform(struct store_io *io) {
    struct disk *disk = &disks[io->disk];
    if (disk->dead || is_bad(disk, io))
        return -E_IO;
    if (io->op == STORE_FLUSH) {
        int fails = !take_failure(&disk->pass_flushes) && take_failure(&disk->fail_flushes);
        flush(disk, fails);
        return fails ? -E_IO : 0;
    }
    if (take_failure(io->op == STORE_READ ? &disk->fail_reads : &disk->fail_writes))
        return -E_IO;
    for (uint32_t i = 0; i < io->page_count; i++) {
        uint64_t sector = io->sector + i * SECTORS_PER_BLOCK;
        uint8_t *at = disk->now + sector * SECTOR_BYTES;
        if (io->op == STORE_READ) {
            memcpy(io->page[i], at, BLOCK_SIZE);
        } else {
            memcpy(at, io->page[i], BLOCK_SIZE);
            remember(disk, sector, io->page[i]);
            write_count++;
        }
    }
    return 0;
}

static int submit(struct store_io *io) {
    struct disk *disk = &disks[io->disk];
    if (io->disk >= DISK_COUNT || (io->op == STORE_WRITE && io->disk != 0))
        return -E_INVAL;
    uint64_t end = io->sector / SECTORS_PER_BLOCK + io->page_count;
    if (io->op != STORE_FLUSH &&
        (io->page_count == 0 || io->page_count > STORE_IO_PAGES_MAX || end > disk->block_count))
        return -E_INVAL;
    if (synchronous && !is_cut()) {
        completion_count++;
        io->done(io, perform(io));
        return 0;
    }
    struct pending *entry = malloc(sizeof *entry);
    *entry = (struct pending){NULL, io, time_ns};
    struct pending **at = &pending;
    while (*at != NULL)
        at = &(*at)->next;
    *at = entry;
    pending_count++;
    return 0;
}

static int is_under_way(const struct pending *entry) {
    const struct disk *disk = &disks[entry->io->disk];
    return disk->hangs || time_ns - entry->start_ns < disk->delay_ns;
}

/* Completes one request, any one, unless the power is cut. 0: there was none. */
static int complete_one(void) {
    if (pending_count == 0 || is_cut())
        return 0;
    size_t index = ordered ? 0 : random_word() % pending_count;
    struct pending **at = &pending;
    while (index-- > 0)
        at = &(*at)->next;
    for (size_t i = 0; i < pending_count && is_under_way(*at); i++)
        at = (*at)->next != NULL ? &(*at)->next : &pending;
    struct pending *entry = *at;
    if (is_under_way(entry))
        return 0;
    *at = entry->next;
    pending_count--;
    completion_count++;
    struct store_io *io = entry->io;
    free(entry);
    io->done(io, perform(io));
    return 1;
}

static jmp_buf power_is_off; /* out of store_open */

static void poll(void) {
    time_ns += 1000000;
    if (!complete_one() && is_cut())
        longjmp(power_is_off, 1); /* store_open would wait for ever */
}

/* What is left after a power cut: unflushed and running writes are lost, whole, or torn at sectors, in any order. */
static void cut_power(struct disk *disk) {
    size_t count = 0;
    for (struct unflushed *write = disk->unflushed; write != NULL; write = write->next)
        count++;
    struct unflushed **order = malloc((count + 1) * sizeof *order);
    size_t i = 0;
    for (struct unflushed *write = disk->unflushed; write != NULL; write = write->next)
        order[i++] = write;
    for (i = count; i > 1; i--) {
        size_t j = random_word() % i;
        struct unflushed *swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
    for (i = 0; i < count; i++) {
        unsigned fate = random_word() % 4;
        for (unsigned s = 0; s < SECTORS_PER_BLOCK; s++)
            if (fate == 1 || (fate == 2 && random_word() % 2) || (fate == 3 && s == 0))
                memcpy(disk->durable + (order[i]->sector + s) * SECTOR_BYTES, order[i]->data + s * SECTOR_BYTES,
                       SECTOR_BYTES);
    }
    free(order);
    memcpy(disk->now, disk->durable, disk->block_count * BLOCK_SIZE);
    settle_all(disk);
}

/* --- the environment --- */

static int quiet;
static void say_notice(const char *text) {
    if (!quiet)
        fprintf(stderr, "notice: %s\n", text);
}
static void wake(const void *key) { (void)key; }

/* Stands for the kernel's vector code, so that the groups are exercised. */
static void hash_pages(uint8_t *const hash[4], const void *const page[4]) {
    for (unsigned i = 0; i < 4; i++)
        blake2b(hash[i], HASH_SIZE, page[i], BLOCK_SIZE);
}

static struct store_env env = {.hash_pages = hash_pages, .submit = submit, .poll = poll, .page_alloc = page_alloc,
                               .page_free = page_free, .wake = wake, .now_ns = now_ns, .random = random_bytes,
                               .notice = say_notice, .signature_valid = ed25519_valid,
                               .unpack = zstd_unpack};

_Noreturn void panic(const char *template, ...) {
    va_list arguments;
    va_start(arguments, template);
    vfprintf(stderr, template, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    abort();
}

/*
 * Nobody has to type: where nothing is on its way and no root waits to be written, a store that is not done has said
 * when it wants to be called again.
 */
static void check_wakes(int more) {
    int is_done = !is_filling || !fill_is_known() || store.complete || store.broken || copy_is_full();
    if (more || pending_count != 0 || is_cut() || store_wait_ns() != UINT64_MAX)
        return;
    if (store_commit_running() || fetch_count() != 0 || (!is_done && !store_has_unsaved_copies()))
        panic("nothing is on its way, and the store waits for no time");
}

/* --- pages with contents that tell themselves apart --- */

static void fill(uint64_t *page, uint64_t value) {
    for (unsigned i = 0; i < BLOCK_SIZE / 8; i++)
        page[i] = value == 0 ? 0 : value * 0x9e3779b97f4a7c15ull + i;
}

static int holds(const uint64_t *page, uint64_t value) {
    for (unsigned i = 0; i < BLOCK_SIZE / 8; i++)
        if (page[i] != (value == 0 ? 0 : value * 0x9e3779b97f4a7c15ull + i))
            return 0;
    return 1;
}

/* --- commits --- */

static struct {
    struct page_key key;
    uint64_t *data;
} staged[STAGED_MAX];
static size_t staged_count, staged_next;
static size_t written_count;
static int commit_result;
static struct store_commit commit;

static int next_page(struct store_commit *c, struct store_commit_page *page) {
    (void)c;
    if (staged_next == staged_count)
        return 0;
    page->key = staged[staged_next].key;
    page->data = staged[staged_next].data;
    page->owner = &staged[staged_next++];
    return 1;
}

static void written(struct store_commit *c, struct store_commit_page *page) {
    (void)c;
    (void)page;
    written_count++;
}

static void again(struct store_commit *c) {
    (void)c;
    staged_next = written_count = 0;
}

static void commit_done(struct store_commit *c, int status) {
    (void)c;
    commit_result = status;
}

static void clear_staged(void) {
    for (size_t i = 0; i < staged_count; i++)
        free(staged[i].data);
    staged_count = staged_next = 0;
}

/* What the next commit says of tags. */
static struct {
    char tag[TAG_SIZE_MAX + 1];
    uint64_t tag_generation, untag_generation, flags, wall_ns;
} say;

/* Programs go on while a commit runs: pages of space 16, of the first so many, are wanted at any moment, and come. */
enum { WANTED_COUNT = 16 };
static struct {
    int is_busy;
    struct store_fetch fetch;
    _Alignas(BLOCK_SIZE) uint64_t page[BLOCK_SIZE / 8];
} wanted[WANTED_COUNT];
static uint64_t wanted_end;

static void wanted_came(struct store_fetch *fetch, int status) {
    (void)status; /* a far store may be away */
    *(int *)fetch->owner = 0;
}

static void want_one(void) {
    const void *key;
    unsigned i = wanted_end != 0 ? (unsigned)(random_word() % WANTED_COUNT) : 0; /* no other test's chances change */
    if (wanted_end == 0 || wanted[i].is_busy)
        return;
    struct store_fetch *fetch = &wanted[i].fetch;
    *fetch = (struct store_fetch){.page = wanted[i].page, .done = wanted_came, .owner = &wanted[i].is_busy};
    if (store_lookup((struct page_key){16, random_word() % wanted_end}, &fetch->pointer, &key) == 0 &&
        ptr_present(&fetch->pointer))
        wanted[i].is_busy = store_fetch(fetch) == 0;
}

static int run_commit(uint64_t generation) {
    commit = (struct store_commit){.generation = generation, .wall_ns = generation * 1000, .mono_ns = generation * 10,
                                   .page_count = staged_count, .record_version = 1, .next = next_page,
                                   .written = written, .done = commit_done, .again = persistent ? again : NULL,
                                   .flags = (uint32_t)say.flags, .tag = say.tag[0] != 0 ? say.tag : NULL,
                                   .tag_generation = say.tag_generation, .untag_generation = say.untag_generation};
    if (say.wall_ns != 0)
        commit.wall_ns = say.wall_ns;
    staged_next = written_count = 0;
    commit_result = 1;
    int status = store_commit_start(&commit);
    unsigned idle_rounds = 0;
    if (status != 0)
        return status;
    for (unsigned round = 0; commit_result == 1 && !is_cut(); round++) {
        if (greedy) /* takes one of so many first free blocks: what is freed is used again at once, for other things */
            store.alloc_next = RING_FIRST_BLOCK + random_word() % (unsigned)greedy;
        want_one();
        int more = store_work(1 + random_word() % 20);
        if (!more && is_filling)
            more = store_fill(FILL_BUDGET);
        int completed = random_word() % 4 != 0 ? complete_one() : 0;
        idle_rounds = more || completed || pending_count != 0 ? 0 : idle_rounds + 1;
        time_ns += 1000000;
        if (idle_rounds > 100000 || round > 1000000)
            return -E_AGAIN;
    }
    if (commit_result == 0 && written_count != staged_count)
        panic("written %zu of %zu", written_count, staged_count);
    return commit_result;
}

/* --- reading --- */

static int fetch_status;
static void fetched(struct store_fetch *fetch, int status) {
    (void)fetch;
    fetch_status = status;
}

static int wait_step(unsigned *rounds) {
    time_ns += 1000000;
    int more = store_work(4);
    if (!more && is_filling)
        more = store_fill(FILL_BUDGET);
    more |= complete_one();
    check_wakes(more);
    *rounds = more || pending_count != 0 ? 0 : *rounds + 1;
    return *rounds < 100000 && !is_cut();
}

static int read_page(struct page_key key, uint64_t *page) {
    struct block_ptr_disk pointer;
    const void *wait_key;
    unsigned rounds = 0;
    int status;
    while (((status = store_lookup(key, &pointer, &wait_key)) == -E_AGAIN || status == -E_NOMEM) && wait_step(&rounds))
        continue;
    if (status != 0)
        return status;
    memset(page, 0, BLOCK_SIZE);
    if (!ptr_present(&pointer))
        return 0;
    struct store_fetch fetch = {.pointer = pointer, .page = page, .done = fetched};
    fetch_status = 1;
    status = store_fetch(&fetch);
    if (status != 0 || fetch_status != 1)
        panic("store_fetch: %d, done before it returned: %d", status, fetch_status != 1);
    for (rounds = 0; fetch_status == 1 && wait_step(&rounds);)
        continue;
    return fetch_status == 1 ? -E_AGAIN : fetch_status;
}

/* --- commands --- */

static void answer(int status, const char *template, ...) __attribute__((format(printf, 2, 3)));
static void answer(int status, const char *template, ...) {
    if (status != 0) {
        printf("err %d\n", -status);
    } else {
        va_list arguments;
        va_start(arguments, template);
        printf("ok ");
        vprintf(template, arguments);
        printf("\n");
        va_end(arguments);
    }
    fflush(stdout);
}

static void answer_end(void) {
    printf("\n");
    fflush(stdout);
}

static void forget_pending(void) {
    while (pending != NULL) {
        struct pending *next = pending->next;
        /* A running write may have reached the platter. */
        if (pending->io->op == STORE_WRITE && random_word() % 2 && !disks[pending->io->disk].dead)
            perform(pending->io);
        free(pending);
        pending = next;
    }
    pending_count = 0;
}

static void cmd_disk(unsigned index, uint64_t block_count) {
    disk_free(&disks[index]);
    disks[index].now = calloc(block_count, BLOCK_SIZE);
    disks[index].durable = calloc(block_count, BLOCK_SIZE);
    disks[index].block_count = block_count;
    answer(0, "%lu", (unsigned long)block_count);
}

static void cmd_load(unsigned index, const char *path) {
    FILE *file = fopen(path, "rb");
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    disk_free(&disks[index]);
    disks[index].block_count = size / BLOCK_SIZE;
    disks[index].now = malloc(size);
    disks[index].durable = malloc(size);
    size_t got = fread(disks[index].now, 1, size, file);
    fclose(file);
    memcpy(disks[index].durable, disks[index].now, got);
    answer(got == size ? 0 : -E_IO, "%zu", size);
}

static void cmd_save(unsigned index, const char *path) {
    FILE *file = fopen(path, "wb");
    size_t size = disks[index].block_count * BLOCK_SIZE;
    size_t put = fwrite(disks[index].now, 1, size, file);
    fclose(file);
    answer(put == size ? 0 : -E_IO, "%zu", size);
}

/* An empty store: header, one root of generation 1, nothing in its tree. */
static void cmd_format(unsigned index) {
    struct disk *disk = &disks[index];
    struct header_disk header = {.magic = HEADER_MAGIC, .version = 1, .ring_count = RING_COUNT,
                                 .block_count = disk->block_count, .ring_first = RING_FIRST_BLOCK,
                                 .ring_stride = (disk->block_count - RING_FIRST_BLOCK) / RING_COUNT};
    random_bytes(header.store_id, sizeof header.store_id);
    blake2b(header.hash, 32, &header, offsetof(struct header_disk, hash));
    struct root_disk root = {.magic = ROOT_MAGIC, .version = 1, .record_version = 1, .sequence = 1, .generation = 1,
                             .tree_height = 1, .meta_height = 1, .block_count = disk->block_count,
                             .free_count = disk->block_count - 96, .alloc_next = 32, .retain_count = 16};
    memcpy(root.store_id, header.store_id, STORE_ID_SIZE);
    blake2b(root.hash, 32, &root, offsetof(struct root_disk, hash));
    memset(disk->now, 0, disk->block_count * BLOCK_SIZE);
    memcpy(disk->now + HEADER_BLOCK * BLOCK_SIZE, &header, sizeof header);
    memcpy(disk->now + HEADER_COPY_BLOCK * BLOCK_SIZE, &header, sizeof header);
    memcpy(disk->now + (RING_FIRST_BLOCK + header.ring_stride) * BLOCK_SIZE, &root, sizeof root);
    settle_all(disk);
    answer(0, "%lu", (unsigned long)disk->block_count);
}

static struct store_options open_options = {.record_version_max = 1};

static int parse_hex(const char *text, uint8_t *bytes) {
    for (unsigned i = 0; i < 32; i++) {
        unsigned byte;
        sscanf(text + 2 * i, "%2x", &byte);
        bytes[i] = (uint8_t)byte;
    }
    return 1;
}

/* open [trust [cut]]; trust: a root hash, or key:PUBLICKEY, or - */
static void cmd_open(const char *trust, uint64_t cut) {
    cut_after = cut == 0 ? UINT64_MAX : completion_count + cut;
    if (setjmp(power_is_off) != 0) {
        answer(0, "cut");
        return;
    }
    is_filling = 0;
    struct store_options options = open_options;
    if (trust != NULL && strlen(trust) == 64)
        options.trust_given = parse_hex(trust, options.trust);
    if (trust != NULL && strncmp(trust, "key:", 4) == 0)
        options.key_given = parse_hex(trust + 4, options.key);
    env.disk_count = DISK_COUNT;
    for (unsigned i = 0; i < DISK_COUNT; i++)
        env.disk_sectors[i] = disks[i].dead ? 0 : disks[i].block_count * SECTORS_PER_BLOCK;
    int status = store_open(&env, &options);
    cut_after = UINT64_MAX;
    answer(status, "%lu", (unsigned long)store_generation());
}

static void cmd_put(uint64_t space, uint64_t page, uint64_t value) {
    size_t at = 0;
    while (at < staged_count && (staged[at].key.space != space || staged[at].key.page != page))
        at++;
    if (at == staged_count) {
        staged[staged_count].key = (struct page_key){space, page};
        staged[staged_count++].data = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
    }
    fill(staged[at].data, value);
    struct block_ptr_disk pointer;
    const void *key;
    unsigned rounds = 0;
    while (store_lookup(staged[at].key, &pointer, &key) == -E_AGAIN && wait_step(&rounds))
        continue;
    answer(0, "%zu", staged_count);
}

static void cmd_put_range(uint64_t space, uint64_t page, uint64_t value, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        staged[staged_count].key = (struct page_key){space, page + i};
        staged[staged_count].data = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
        fill(staged[staged_count++].data, value + i);
    }
    struct block_ptr_disk pointer;
    const void *key;
    unsigned rounds = 0;
    while (count > 0 && store_lookup(staged[staged_count - 1].key, &pointer, &key) == -E_AGAIN && wait_step(&rounds))
        continue;
    answer(0, "%zu", staged_count);
}

/* commit N: a new generation when N is 1, else a root without pages. */
static void cmd_commit(uint64_t new_generation, uint64_t cut) {
    cut_after = cut == 0 ? UINT64_MAX : completion_count + cut;
    int status = run_commit(store_generation() + new_generation);
    if (status == 1) {
        answer(0, "cut");
        return;
    }
    cut_after = UINT64_MAX;
    if (status == 0)
        clear_staged();
    answer(status, "%lu %lu", (unsigned long)store_generation(), (unsigned long)write_count);
}

static void cmd_get(uint64_t space, uint64_t page, uint64_t value) {
    uint64_t *buffer = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
    int status = read_page((struct page_key){space, page}, buffer);
    int same = status == 0 && holds(buffer, value);
    uint64_t first = status == 0 ? buffer[0] : 0;
    free(buffer);
    answer(status, "%s %lx", same ? "same" : "other", (unsigned long)first);
}

/* The next commits tag a generation (0: the new one), until told otherwise; no name: no tag. */
static void cmd_tag(uint64_t generation, const char *name) {
    say.tag_generation = generation;
    memset(say.tag, 0, sizeof say.tag);
    memcpy(say.tag, name, strlen(name));
    answer(0, "%s", name);
}

/* The next commit replaces kernel, loader and resume list (0 pages: not) with patterns from value on. */
static void cmd_boot(unsigned kernel_count, unsigned loader_count, uint64_t value, unsigned resume_count) {
    static uint64_t page[3][NODE_FANOUT][BLOCK_SIZE / 8];
    static struct store_boot_object object[3];
    const unsigned count[3] = {kernel_count, loader_count, resume_count};
    memset(object, 0, sizeof object);
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned j = 0; j < count[i]; j++) {
            fill(page[i][j], value + j);
            object[i].page[j] = page[i][j];
        }
        object[i].size = count[i] * BLOCK_SIZE - (i == 1) * BLOCK_SIZE;
    }
    page[2][0][0] = 1; /* keys in the list */
    store_boot_replace(kernel_count != 0 ? &object[0] : NULL, loader_count != 0 ? &object[1] : NULL,
                       resume_count != 0 ? &object[2] : NULL);
    answer(0, "%lu", (unsigned long)value);
}

/* grow BLOCKS [cut] */
static void cmd_grow(uint64_t block_count, uint64_t cut) {
    struct disk *disk = &disks[0];
    if (block_count > disk->block_count) {
        disk->now = realloc(disk->now, block_count * BLOCK_SIZE);
        disk->durable = realloc(disk->durable, block_count * BLOCK_SIZE);
        memset(disk->now + disk->block_count * BLOCK_SIZE, 0, (block_count - disk->block_count) * BLOCK_SIZE);
        memset(disk->durable + disk->block_count * BLOCK_SIZE, 0, (block_count - disk->block_count) * BLOCK_SIZE);
        disk->block_count = block_count;
        env.disk_sectors[0] = block_count * SECTORS_PER_BLOCK;
    }
    cut_after = cut == 0 ? UINT64_MAX : completion_count + cut;
    if (setjmp(power_is_off) != 0) {
        answer(0, "cut");
        return;
    }
    int status = store_grow(block_count);
    cut_after = UINT64_MAX;
    answer(status, "%lu", (unsigned long)block_count);
}

static void cmd_history(void) {
    static struct generation_disk record[1024];
    const void *key;
    unsigned rounds = 0;
    int count;
    while ((count = store_history(0, record, 1024, &key)) == -E_AGAIN && wait_step(&rounds))
        continue;
    if (count < 0) {
        answer(count, "%s", "");
        return;
    }
    printf("ok");
    for (int i = 0; i < count; i++)
        printf(" %lu:%u:%s", (unsigned long)record[i].generation, record[i].flags, record[i].tag);
    answer_end();
}

static void cmd_crash(void) {
    forget_pending();
    while (pages_out > 0)
        free(pages[--pages_out]);
    for (unsigned i = 0; i < DISK_COUNT; i++)
        if (disks[i].now != NULL)
            cut_power(&disks[i]);
    for (unsigned i = 0; i < DISK_COUNT; i++) /* the next life begins with good disks */
        disks[i].fail_reads = disks[i].fail_writes = disks[i].fail_flushes = disks[i].pass_flushes = 0;
    clear_staged();
    memset(wanted, 0, sizeof wanted);
    cut_after = UINT64_MAX;
    answer(0, "crashed");
}

static void cmd_idle(uint64_t rounds) {
    for (uint64_t i = 0; i < rounds && !is_cut(); i++) {
        time_ns += 1000000;
        store_work(4);
        complete_one();
    }
    answer(0, "%d", store_has_unsaved_copies());
}

/* The same for what nobody asks for. */
static void cmd_fill(uint64_t rounds) {
    is_filling = 1;
    for (uint64_t i = 0; i < rounds && !is_cut(); i++) {
        time_ns += 1000000;
        int more = store_work(4) || store_fill(FILL_BUDGET);
        check_wakes(complete_one() || more);
    }
    answer(0, "%d", store_has_unsaved_copies());
}

static void cmd_facts(void) {
    struct store_facts facts;
    store_facts(&facts);
    answer(0, "generation=%lu sequence=%lu total=%lu free=%lu near_reads=%lu near_writes=%lu far_reads=%lu "
              "far_requests=%lu far_failures=%lu hash_failures=%lu cached=%lu complete=%d pages=%zu completions=%lu time_ms=%lu",
           (unsigned long)facts.generation, (unsigned long)facts.sequence, (unsigned long)facts.near_blocks_total,
           (unsigned long)facts.near_blocks_free, (unsigned long)facts.near_reads, (unsigned long)facts.near_writes,
           (unsigned long)facts.far_reads, (unsigned long)facts.far_requests, (unsigned long)facts.far_failures,
           (unsigned long)facts.hash_failures, (unsigned long)facts.cached_nodes, facts.complete, pages_out,
           (unsigned long)completion_count, (unsigned long)(time_ns / 1000000));
}

static void cmd_flip(unsigned index, uint64_t block, uint64_t byte) {
    disks[index].now[block * BLOCK_SIZE + byte] ^= 0x10;
    disks[index].durable[block * BLOCK_SIZE + byte] ^= 0x10;
    answer(0, "flipped");
}

static void cmd_set(const char *name, uint64_t index, uint64_t value) {
    if (strcmp(name, "seed") == 0)
        seed = value * 2 + 1;
    else if (strcmp(name, "ordered") == 0)
        ordered = (int)value;
    else if (strcmp(name, "greedy") == 0)
        greedy = (int)value;
    else if (strcmp(name, "next") == 0)
        store.alloc_next = value;
    else if (strcmp(name, "synchronous") == 0)
        synchronous = (int)value;
    else if (strcmp(name, "quiet") == 0)
        quiet = (int)value;
    else if (strcmp(name, "persistent") == 0)
        persistent = (int)value;
    else if (strcmp(name, "memory") == 0)
        page_limit = value == 0 ? SIZE_MAX : value;
    else if (strcmp(name, "starve") == 0)
        starve = value;
    else if (strcmp(name, "wanted") == 0)
        wanted_end = value;
    else if (strcmp(name, "dead") == 0)
        disks[index].dead = (int)value;
    else if (strcmp(name, "hangs") == 0)
        disks[index].hangs = (int)value;
    else if (strcmp(name, "untag") == 0)
        say.untag_generation = value;
    else if (strcmp(name, "flags") == 0)
        say.flags = value;
    else if (strcmp(name, "wall") == 0)
        say.wall_ns = value;
    else if (strcmp(name, "retain") == 0)
        open_options.retention.count = (uint32_t)value, open_options.retention_given = 1;
    else if (strcmp(name, "hourly") == 0)
        open_options.retention.hourly = (uint32_t)value;
    else if (strcmp(name, "daily") == 0)
        open_options.retention.daily = (uint32_t)value;
    else if (strcmp(name, "delay_ms") == 0)
        disks[index].delay_ns = value * 1000000;
    else if (strcmp(name, "fail_reads") == 0)
        disks[index].fail_reads = (unsigned)value;
    else if (strcmp(name, "fail_writes") == 0)
        disks[index].fail_writes = (unsigned)value;
    else if (strcmp(name, "fail_flushes") == 0)
        disks[index].fail_flushes = (unsigned)value;
    else if (strcmp(name, "pass_flushes") == 0)
        disks[index].pass_flushes = (unsigned)value;
    else if (strcmp(name, "bad_first") == 0)
        disks[index].bad_first = value;
    else if (strcmp(name, "bad_count") == 0)
        disks[index].bad_count = value;
    else {
        answer(-E_INVAL, "%s", "");
        return;
    }
    answer(0, "%s", name);
}

static void command(char *line) {
    char name[32] = "", text[256] = "";
    unsigned long a = 0, b = 0, c = 0, d = 0;
    const void *key;
    int words;
    sscanf(line, "%31s", name);
    if (strcmp(name, "open") != 0)
        sscanf(line, "%*s %lu %lu %lu %lu", &a, &b, &c, &d);
    if (strcmp(name, "disk") == 0)
        cmd_disk((unsigned)a, b);
    else if (strcmp(name, "load") == 0 && sscanf(line, "%*s %lu %255s", &a, text) == 2)
        cmd_load((unsigned)a, text);
    else if (strcmp(name, "save") == 0 && sscanf(line, "%*s %lu %255s", &a, text) == 2)
        cmd_save((unsigned)a, text);
    else if (strcmp(name, "format") == 0)
        cmd_format((unsigned)a);
    else if (strcmp(name, "open") == 0)
        words = sscanf(line, "%*s %255s %lu", text, &a), cmd_open(words >= 1 ? text : NULL, a);
    else if (strcmp(name, "put") == 0)
        cmd_put(a, b, c);
    else if (strcmp(name, "puts") == 0)
        cmd_put_range(a, b, c, d);
    else if (strcmp(name, "commit") == 0)
        cmd_commit(a, b);
    else if (strcmp(name, "get") == 0)
        cmd_get(a, b, c);
    else if (strcmp(name, "clone") == 0)
        answer(store_space_clone(a, b, &key), "%s", "cloned");
    else if (strcmp(name, "drop") == 0)
        answer(store_space_drop(a), "%s", "dropped");
    else if (strcmp(name, "tag") == 0)
        sscanf(line, "%*s %lu %47s", &a, text), cmd_tag(a, text);
    else if (strcmp(name, "boot") == 0)
        cmd_boot((unsigned)a, (unsigned)b, c, (unsigned)d);
    else if (strcmp(name, "grow") == 0)
        cmd_grow(a, b);
    else if (strcmp(name, "history") == 0)
        cmd_history();
    else if (strcmp(name, "crash") == 0)
        cmd_crash();
    else if (strcmp(name, "fill") == 0)
        cmd_fill(a);
    else if (strcmp(name, "idle") == 0)
        cmd_idle(a);
    else if (strcmp(name, "facts") == 0)
        cmd_facts();
    else if (strcmp(name, "flip") == 0)
        cmd_flip((unsigned)a, b, c);
    else if (strcmp(name, "shrink") == 0)
        answer(0, "%zu", store_shrink(a));
    else if (strcmp(name, "set") == 0 && sscanf(line, "%*s %31s %lu %lu", text, &a, &b) == 3)
        cmd_set(text, a, b);
    else
        answer(-E_INVAL, "%s", "");
}

int main(void) {
    char line[512];
    while (fgets(line, sizeof line, stdin) != NULL)
        command(line);
    return 0;
}
