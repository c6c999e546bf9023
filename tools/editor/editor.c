/*
 * tools/editor/editor.c: the kernel's own store (kernel/store) over an image file, for changes while no machine runs.
 *
 * Promise: one run makes one durable root, by the store's own commit (data, FLUSH, root, FLUSH), or none; who kills it
 * leaves the old state or the new one. Reads its orders on stdin (tools/editor/README.md), answers with one line on
 * stdout: "ok GENERATION SEQUENCE" or "err CODE" (kernel/lib/error.h); what the store says to people goes to stderr.
 * With REVENANT_WRITE_LOG in the environment, whatever it does to the image is also in the file of that name.
 * Called by: tools/revenant/change.py, which holds the image's lock.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/lib.h"
#include "store/store.h"

enum { STEP_BUDGET = 64, STUCK_ROUNDS_MAX = 8, LINE_SIZE = 512 };

static int disk_fd[1 + STORE_FAR_COUNT_MAX];
static uint64_t io_count;

/* --- the log of writes and flushes, in the format of dm-log-writes, as QEMU's blklogwrites keeps it --- */

enum { LOG_FLUSH = 1, LOG_DISCARD = 4 };
#define LOG_MAGIC 0x6a736677736872ull

static FILE *log_file;
static uint64_t log_count;

/* A sector that begins with these numbers. */
static void log_sector(const uint64_t number[4]) {
    static uint8_t sector[SECTOR_SIZE];
    memcpy(sector, number, 4 * sizeof *number);
    if (fwrite(sector, sizeof sector, 1, log_file) != 1)
        panic("the log of writes cannot be written: %s", strerror(errno));
}

/* The superblock counts the entries: those before it are all there. */
static void log_count_write(void) {
    if (fseek(log_file, 0, SEEK_SET) != 0)
        panic("the log of writes is no file");
    log_sector((const uint64_t[]){LOG_MAGIC, 1, log_count, SECTOR_SIZE});
    if (fseek(log_file, 0, SEEK_END) != 0 || fflush(log_file) != 0)
        panic("the log of writes cannot be written: %s", strerror(errno));
}

static void log_open(const char *path) {
    log_file = fopen(path, "w");
    if (log_file == NULL)
        panic("%s: %s", path, strerror(errno));
    log_count_write();
}

static void log_entry(uint64_t sector, uint64_t sector_count, uint64_t flags, const void *data) {
    if (log_file == NULL)
        return;
    log_sector((const uint64_t[]){sector, sector_count, flags, 0});
    if (data != NULL && fwrite(data, SECTOR_SIZE, sector_count, log_file) != sector_count)
        panic("the log of writes cannot be written: %s", strerror(errno));
    log_count++;
    log_count_write();
}

/* --- the store's world below --- */

static int write_block(uint64_t sector, const void *data) {
    if (pwrite(disk_fd[0], data, BLOCK_SIZE, (off_t)(sector * SECTOR_SIZE)) != BLOCK_SIZE) {
        fprintf(stderr, "the image cannot be written: %s\n", strerror(errno));
        return -E_IO;
    }
    log_entry(sector, SECTORS_PER_BLOCK, 0, data);
    return 0;
}

static int flush(void) {
    if (fdatasync(disk_fd[0]) != 0)
        return -E_IO;
    log_entry(0, 0, LOG_FLUSH, NULL);
    return 0;
}

static int read_pages(const struct store_io *io) {
    off_t offset = (off_t)(io->sector * SECTOR_SIZE);
    for (uint32_t i = 0; i < io->page_count; i++)
        if (pread(disk_fd[io->disk], io->page[i], BLOCK_SIZE, offset + (off_t)i * BLOCK_SIZE) != BLOCK_SIZE)
            return -E_IO;
    return 0;
}

static int write_pages(const struct store_io *io) {
    int status = 0;
    for (uint32_t i = 0; i < io->page_count && status == 0; i++)
        status = write_block(io->sector + i * SECTORS_PER_BLOCK, io->page[i]);
    return status;
}

/* Everything is done at once, so nothing is ever in flight. */
static int submit(struct store_io *io) {
    if (io->op == STORE_WRITE && io->disk != 0)
        return -E_INVAL;
    io_count++;
    switch (io->op) {
    case STORE_READ:
        io->done(io, read_pages(io));
        break;
    case STORE_WRITE:
        io->done(io, write_pages(io));
        break;
    case STORE_FLUSH:
        io->done(io, flush());
        break;
    }
    return 0;
}

static void poll(void) { store_work(STEP_BUDGET); }

static void *page_alloc(int urgent) {
    (void)urgent;
    return aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
}

static void wake(const void *key) { (void)key; }

static uint64_t clock_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint64_t now_ns(void) { return clock_of(CLOCK_MONOTONIC); }

static void random_bytes(void *buffer, size_t size) { check(getrandom(buffer, size, 0) == (ssize_t)size); }

static void say(const char *text) { fprintf(stderr, "%s\n", text); }

_Noreturn void panic(const char *template, ...) {
    va_list arguments;
    va_start(arguments, template);
    vfprintf(stderr, template, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    abort();
}

static struct store_env env = {.submit = submit, .poll = poll, .page_alloc = page_alloc, .page_free = free,
                               .wake = wake, .now_ns = now_ns, .random = random_bytes, .notice = say};

/* --- orders --- */

static _Noreturn void answer(int status) {
    struct store_facts facts;
    store_facts(&facts);
    if (status != 0)
        printf("err %d\n", -status);
    else
        printf("ok %lu %lu\n", (unsigned long)facts.generation, (unsigned long)facts.sequence);
    exit(status != 0);
}

/* Exactly so many bytes of the order; without them nothing may be changed. */
static void read_exactly(void *buffer, size_t size) {
    if (fread(buffer, 1, size, stdin) == size)
        return;
    fprintf(stderr, "the order ends too early\n");
    answer(-E_INVAL);
}

struct order_page {
    uint64_t space, page;
    uint8_t data[BLOCK_SIZE];
};

static uint64_t pages_left;

static int next_page(struct store_commit *commit, struct store_commit_page *page) {
    (void)commit;
    if (pages_left == 0)
        return 0;
    struct order_page *order = malloc(sizeof *order);
    check(order != NULL);
    read_exactly(order, sizeof *order);
    *page = (struct store_commit_page){.key = {order->space, order->page}, .data = order->data, .owner = order};
    pages_left--;
    return 1;
}

static void written(struct store_commit *commit, struct store_commit_page *page) {
    (void)commit;
    free(page->owner);
}

static void done(struct store_commit *commit, int status) { *(int *)commit->owner = status; }

/* Works until *result is settled. All I/O is at once: where none is made any more, nothing will come of it. */
static int work(const int *result) {
    for (unsigned stuck_rounds = 0; *result == 1;) {
        uint64_t io_before = io_count;
        int more = store_work(STEP_BUDGET);
        stuck_rounds = more || io_count != io_before ? 0 : stuck_rounds + 1;
        if (stuck_rounds == STUCK_ROUNDS_MAX) {
            fprintf(stderr, "a block that is needed is only in a far store: give it with --far\n");
            return -E_NOENT;
        }
    }
    return *result;
}

/* Bytes of the order as pages of a boot object. */
static void read_object(struct store_boot_object *object, unsigned index, size_t size) {
    object->size = (uint32_t)size;
    for (; size > 0; index++) {
        size_t part = size < BLOCK_SIZE ? size : BLOCK_SIZE;
        uint8_t *page = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
        check(page != NULL);
        memset(page, 0, BLOCK_SIZE);
        read_exactly(page, part);
        object->page[index] = page_is_zero(page) ? NULL : page;
        size -= part;
    }
}

/* An empty block 0 says that the loader has to be installed: the store does that once its object is durable. */
static int empty_boot_record(void) {
    static const uint8_t zeros[BLOCK_SIZE];
    int status = write_block(0, zeros);
    return status == 0 ? flush() : status;
}

static int installing;

/* That the store does by itself when it has nothing else to do. Who is killed here leaves it to the next start. */
static void install_loader(void) {
    for (uint64_t before = UINT64_MAX; before != io_count;) {
        before = io_count;
        while (store_work(STEP_BUDGET))
            continue;
    }
}

static struct start_failures_disk failures;
static int failures_given;

/* failures STARTS HEALS GENERATION MONO_NS: what the next commit's root says of failed starts. */
static int order_failures(const char *words) {
    unsigned long generation, mono_ns;
    if (sscanf(words, "%u %u %lu %lu", &failures.start_count, &failures.heal_count, &generation, &mono_ns) != 4)
        return -E_INVAL;
    failures.generation = generation;
    failures.mono_ns = mono_ns;
    failures_given = 1;
    return 0;
}

/* commit NEW RECORD_VERSION FLAGS ORIGIN TAG_GENERATION UNTAG_GENERATION PAGE_COUNT [TAG] */
static int order_commit(const char *words) {
    static char tag[LINE_SIZE];
    unsigned long is_new, version, flags, origin, tag_generation, untag_generation, page_count;
    int result = 1;
    int count = sscanf(words, "%lu %lu %lu %lu %lu %lu %lu %511[^\n]", &is_new, &version, &flags, &origin,
                       &tag_generation, &untag_generation, &page_count, tag);
    if (count < 7)
        return -E_INVAL;
    pages_left = page_count;
    struct store_commit commit = {.generation = store_generation() + is_new, .wall_ns = clock_of(CLOCK_REALTIME),
                                  .mono_ns = store_mono_ns(), .page_count = page_count,
                                  .record_version = (uint32_t)version, .flags = (uint32_t)flags, .origin = origin,
                                  .tag = count == 8 ? tag : NULL, .tag_generation = tag_generation,
                                  .untag_generation = untag_generation,
                                  .failures = failures_given ? &failures : NULL,
                                  .next = next_page, .written = written, .done = done, .owner = &result};
    int status = store_commit_start(&commit);
    return status == 0 ? work(&result) : status;
}

/* boot KERNEL_SIZE RECORD_SIZE LOADER_SIZE, then the bytes of each; size 0: none. The next commit installs them. */
static int order_boot(const char *words) {
    static struct store_boot_object kernel, loader;
    unsigned long kernel_size, record_size, loader_size;
    if (sscanf(words, "%lu %lu %lu", &kernel_size, &record_size, &loader_size) != 3 || kernel_size > KERNEL_SIZE_MAX ||
        record_size > BLOCK_SIZE || loader_size > LOADER_BLOCK_COUNT * BLOCK_SIZE)
        return -E_INVAL;
    read_object(&kernel, 0, kernel_size);
    read_object(&loader, 0, record_size);
    read_object(&loader, 1, loader_size);
    store_boot_replace(kernel_size != 0 ? &kernel : NULL, loader_size != 0 ? &loader : NULL, NULL);
    installing = loader_size != 0;
    return installing ? empty_boot_record() : 0;
}

/* resume SIZE, then its bytes: the next commit makes them the resume list. */
static int order_resume(const char *words) {
    static struct store_boot_object list;
    uint64_t size = strtoull(words, NULL, 10);
    if (size == 0 || size > NODE_FANOUT * BLOCK_SIZE)
        return -E_RANGE;
    read_object(&list, 0, size);
    store_boot_replace(NULL, NULL, &list);
    return 0;
}

/* grow BLOCKS: the file, then the headers. */
static int order_grow(const char *words) {
    uint64_t block_count = strtoull(words, NULL, 10), before = env.disk_sectors[0];
    uint64_t sector_count = block_count * SECTORS_PER_BLOCK;
    if (block_count > UINT32_MAX)
        return -E_RANGE;
    if (sector_count > before) {
        if (ftruncate(disk_fd[0], (off_t)(sector_count * SECTOR_SIZE)) != 0) {
            fprintf(stderr, "the image cannot be enlarged: %s\n", strerror(errno));
            return -E_IO;
        }
        log_entry(before, sector_count - before, LOG_DISCARD, NULL);
        env.disk_sectors[0] = sector_count;
    }
    return store_grow(block_count);
}

/* root SEQUENCE: what follows was decided on this root record, so it must be the store's newest, too. */
static int order_root(const char *words) {
    struct store_facts facts;
    store_facts(&facts);
    if (facts.sequence == strtoull(words, NULL, 10))
        return 0;
    fprintf(stderr, "its newest root record does not lead to a whole state: let the machine start from it first\n");
    return -E_CORRUPT;
}

static int order(char *line) {
    if (strncmp(line, "root ", 5) == 0)
        return order_root(line + 5);
    if (strncmp(line, "commit ", 7) == 0)
        return order_commit(line + 7);
    if (strncmp(line, "failures ", 9) == 0)
        return order_failures(line + 9);
    if (strncmp(line, "boot ", 5) == 0)
        return order_boot(line + 5);
    if (strncmp(line, "resume ", 7) == 0)
        return order_resume(line + 7);
    if (strncmp(line, "grow ", 5) == 0)
        return order_grow(line + 5);
    fprintf(stderr, "no such order: %s", line);
    return -E_INVAL;
}

/* The image's descriptor, then those of far images. */
static int open_disks(int count, char **words) {
    if (count < 1 || count > 1 + STORE_FAR_COUNT_MAX)
        return -E_INVAL;
    for (int i = 0; i < count; i++) {
        struct stat facts;
        disk_fd[i] = atoi(words[i]);
        if (fstat(disk_fd[i], &facts) != 0)
            return -E_IO;
        env.disk_sectors[i] = (uint64_t)facts.st_size / SECTOR_SIZE;
    }
    env.disk_count = (unsigned)count;
    return 0;
}

int main(int argc, char **argv) {
    static const struct store_options options = {.record_version_max = UINT32_MAX};
    char line[LINE_SIZE];
    const char *log_path = getenv("REVENANT_WRITE_LOG");
    if (log_path != NULL)
        log_open(log_path);
    int status = open_disks(argc - 1, argv + 1);
    if (status == 0)
        status = store_open(&env, &options);
    while (status == 0 && fgets(line, sizeof line, stdin) != NULL)
        status = order(line);
    if (status == 0 && installing)
        install_loader();
    answer(status);
}
