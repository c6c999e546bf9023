/*
 * kernel/main.c: wires everything together, once, and fills the tables of upward calls. Then programs run and this is
 * over.
 *
 * Order: CPU, memory, devices, store, pager, programs. Boot is resume: there is nothing else to start.
 * Called by: the boot stubs in arch (boot/PROTOCOL.md), on the kernel stack, interrupts off.
 */
#include "abi/boot_info.h"
#include "arch/x86_64/arch.h"
#include "drivers/block.h"
#include "drivers/clock.h"
#include "drivers/console.h"
#include "drivers/drivers.h"
#include "drivers/entropy.h"
#include "drivers/fw_cfg.h"
#include "drivers/keyboard.h"
#include "drivers/screen.h"
#include "drivers/terminal.h"
#include "drivers/virtio.h"
#include "lib/error.h"
#include "lib/lib.h"
#include "lib/options.h"
#include "mm/frame.h"
#include "pager/pager.h"
#include "proc/proc.h"
#include "store/store.h"

enum { EXIT_PANIC = 0x7f, EXIT_REFUSED = 0x7d, EXIT_ENDED = 0x7c, EXIT_STOPPED = 0x7b };
enum { OPTIONS_SIZE = 1024, IO_COUNT = 256, START_BUDGET = 8, POLL_COUNT_MAX = 1000, READ_TRY_COUNT = 8 };

extern const char kernel_end[];

/* What `revenant upgrade` asks of a kernel file before it installs it: an ELF note. */
static const struct {
    uint32_t name_size, value_size, type;
    char name[12];
    uint32_t format_version, record_version; /* the newest that this kernel reads and writes */
} version_note __attribute__((section(".note.revenant"), aligned(4), used)) = {
    sizeof "Revenant", 8, 1, "Revenant", FORMAT_VERSION_MAX, RECORD_VERSION,
};

static struct boot_info boot;
static int is_starting = 1; /* no program has run yet: all wait for each read */

/* --- time: the machine's goes on where the generation left it, and stands still until its programs go on --- */

static uint64_t mono_ns; /* then */
static uint64_t started_ns; /* the clock's time then */

static uint64_t machine_now_ns(void) { return mono_ns + (is_starting ? 0 : clock_ns() - started_ns); }

/* When the clock was 0, which the machine's time was not yet. */
static int64_t machine_birth_ns(void) { return (int64_t)(mono_ns - started_ns); }

static void machine_timer_arm(uint64_t deadline_ns) {
    if (deadline_ns != UINT64_MAX)
        deadline_ns = deadline_ns > mono_ns ? deadline_ns - mono_ns + started_ns : 0;
    clock_timer_arm(deadline_ns);
}

/* --- log --- */

static _Noreturn void panic_end(const char *text) {
    (void)text;
    arch_debug_exit(EXIT_PANIC);
}

static const struct log_sink log_sink = {voice_write, panic_end, console_panic_write, pager_describe, clock_ns};

/* --- the store's world below: block devices and frames --- */

static struct block_device *disk[1 + STORE_FAR_COUNT_MAX];
static struct io_request {
    struct block_request block;
    unsigned tries;
} requests[IO_COUNT];
static struct list_node requests_free, io_waiting;
static uint64_t io_done_count, io_in_flight;
static uint64_t waited_cycles; /* for disks, before the first program ran */

static void io_start(struct store_io *io);

/* A read of near that fails is made again: there is no other copy. One of far is asked elsewhere once programs run. */
static int read_again(struct block_request *request) {
    const struct store_io *io = request->owner;
    struct io_request *own = (struct io_request *)(void *)request;
    return io->op == STORE_READ && (io->disk == 0 || is_starting) && ++own->tries < READ_TRY_COUNT &&
           block_submit(disk[io->disk], request) == 0;
}

static void io_done(struct block_request *request, int status) {
    struct store_io *io = request->owner;
    if (status == -E_IO && read_again(request))
        return;
    if (status != 0)
        trace(TRACE_IO_ERROR, io->disk, io->sector, io->op);
    io_done_count++;
    io_in_flight--;
    list_append(&requests_free, &request->link);
    io->done(io, status);
    proc_attention(); /* the commit may go on */
    struct list_node *next = list_empty(&requests_free) ? NULL : list_pop(&io_waiting);
    if (next != NULL)
        io_start(list_entry(next, struct store_io, link));
}

static void io_start(struct store_io *io) {
    static const enum block_op op[] = {
        [STORE_READ] = BLOCK_READ, [STORE_WRITE] = BLOCK_WRITE, [STORE_FLUSH] = BLOCK_FLUSH};
    struct block_request *request = list_entry(list_pop(&requests_free), struct block_request, link);
    ((struct io_request *)(void *)request)->tries = 0;
    request->op = op[io->op];
    request->sector = io->sector;
    request->page_count = io->page_count;
    for (uint32_t i = 0; i < io->page_count; i++)
        request->page[i] = io->page[i];
    request->done = io_done;
    request->owner = io;
    io_in_flight++;
    int status = block_submit(disk[io->disk], request);
    if (status != 0)
        io_done(request, status);
}

static int store_submit(struct store_io *io) {
    if (io->disk > STORE_FAR_COUNT_MAX || disk[io->disk] == NULL || io->page_count > BLOCK_PAGES_MAX)
        return -E_INVAL;
    if (list_empty(&requests_free))
        list_append(&io_waiting, &io->link);
    else
        io_start(io);
    return 0;
}

static void *store_page_alloc(int urgent) {
    struct frame *frame = frame_alloc(FRAME_STORE, urgent);
    if (frame == NULL && urgent && pager_memory_make())
        frame = frame_alloc(FRAME_STORE, urgent);
    return frame ? frame_data(frame) : NULL;
}

static void store_page_free(void *page) { frame_free(frame_of(virt_to_phys(page))); }

static void store_hash_page(uint8_t *hash, const void *page) {
    arch_vector_begin();
    blake2b_page(hash, page);
    arch_vector_end();
}

static void store_hash_pages(uint8_t *const hash[4], const void *const page[4]) {
    arch_vector_begin();
    blake2b_pages(hash, page);
    arch_vector_end();
}

/* Until something completes, or for a moment. */
static void disks_wait(void) {
    uint64_t done_before = io_done_count, start = arch_cycles(), last_poll = start;
    for (unsigned i = 0; i < POLL_COUNT_MAX && io_in_flight > 0 && io_done_count == done_before; i++) {
        last_poll = arch_cycles();
        block_poll();
    }
    waited_cycles += last_poll - start;
}

static uint64_t devices_waited_cycles(void) { return waited_cycles + virtqueue_waited_cycles(); }

static void store_notice(const char *text) { notice("store: %s", text); }

/* A node has come: not threads alone wait for one, the commit does, too. */
static void store_wake(const void *key) {
    proc_wake(key);
    proc_attention();
}

static struct store_env store_env = {
    .submit = store_submit,
    .poll = disks_wait,
    .page_alloc = store_page_alloc,
    .page_free = store_page_free,
    .wake = store_wake,
    .now_ns = clock_ns,
    .random = entropy_read,
    .signature_valid = ed25519_valid,
    .unpack = zstd_unpack,
    .notice = store_notice,
};

static void disks_find(void) {
    static char serial[] = "far0";
    list_init(&requests_free);
    list_init(&io_waiting);
    for (unsigned i = 0; i < IO_COUNT; i++)
        list_append(&requests_free, &requests[i].block.link);
    disk[0] = block_device_by_serial("near");
    if (disk[0] == NULL)
        panic("there is no virtio disk with serial \"near\"");
    for (unsigned n = 1; n <= STORE_FAR_COUNT_MAX; n++) {
        serial[3] = (char)('0' + n);
        disk[n] = block_device_by_serial(serial);
    }
    for (unsigned n = 0; n <= STORE_FAR_COUNT_MAX; n++) {
        store_env.disk_sectors[n] = disk[n] ? disk[n]->sector_count : 0;
        if (disk[n])
            store_env.disk_count = n + 1;
    }
}

/* --- ends --- */

static _Noreturn void refuse(const char *what, int status) {
    notice("%s (error %d): nothing was changed, the machine stops", what, -status);
    arch_debug_exit(EXIT_REFUSED);
}

static _Noreturn void stop(const char *what, int status) {
    notice("%s (error %d): the machine stops", what, -status);
    arch_debug_exit(EXIT_STOPPED);
}

/* --- tables of upward calls --- */

static const struct arch_handlers arch_handlers = {proc_page_fault, proc_exception, proc_syscall, proc_before_user};
static const struct console_sink console_sink = {console_take_output, console_give_input, console_input_room_left};

static void input_room(void) {
    console_input_room();
    keyboard_input_room();
}

static const struct pager_hooks pager_hooks = {
    .freezing = proc_freezing,
    .durable = proc_durable,
    .wake = proc_wake,
    .attention = proc_attention,
    .stop = stop,
    .now_ns = machine_now_ns,
    .wall_ns = clock_wall_ns,
};

/* --- start --- */

/* While nothing runs yet: disks, and the store's own work, on which a read may depend. */
static void start_poll(void) {
    disks_wait();
    store_work(START_BUDGET);
}

/* What there was to say is on the disk and said. */
static _Noreturn void ended(int badly) {
    notice("no program is left: the machine ends");
    if (badly)
        arch_debug_signal(EXIT_ENDED);
    arch_power_off();
}

static void memory_start(const struct boot_info *info) {
    boot = *info;
    if (boot.magic != BOOT_INFO_MAGIC || boot.version != BOOT_INFO_VERSION)
        panic("the loader's boot_info is not version %u", BOOT_INFO_VERSION);
    uint64_t memory_end = frame_early_init(&boot, virt_to_phys(kernel_end));
    paging_init(memory_end, frame_early_alloc);
    frame_init();
}

static void store_start(const struct options *options) {
    struct store_options store_options = {.record_version_max = RECORD_VERSION, .trust_given = options->trust_given};
    memcpy(store_options.trust, options->trust, ROOT_HASH_SIZE);
    store_options.key_given = options->key_given;
    memcpy(store_options.key, options->key, PUBLIC_KEY_SIZE);
    store_options.retention_given = options->retain_given;
    store_options.retention = (struct store_retention){options->retain[0], options->retain[1], options->retain[2]};
    static char packed[OPTIONS_SIZE];
    if (fw_cfg_read_file("opt/revenant/packed", packed, sizeof packed) > 0)
        options_parse_packed(store_options.packed, packed); /* a hint: without it, the same comes later */
    if (arch_vector_init()) {
        store_env.hash_page = store_hash_page;
        store_env.hash_pages = store_hash_pages;
    }
    int status = store_open(&store_env, &store_options);
    if (status != 0)
        refuse("there is no generation to go on from", status);
    mono_ns = store_mono_ns();
    clock_wall_not_before(store_wall_ns());
}

/* QEMU's window, if this machine has one: it first shows what the serial port was given before. */
static void window_start(void) {
    if (screen_init() != 0)
        return;
    console_repeat(terminal_write);
    screen_reveal();
    int status = keyboard_init(&console_sink);
    if (status != 0)
        notice("no PS/2 keyboard (error %d): the window only shows", -status);
}

static void programs_start(const struct options *options) {
    const struct pager_options pager_options = {.interval_ns = options->interval_ms * 1000000ull,
                                                .fill = options->fill,
                                                .record = options->record};
    pager_init(&pager_hooks, &pager_options);
    const struct proc_env env = {
        .poll = start_poll,
        .refuse = refuse,
        .ended = ended,
        .timer_arm = machine_timer_arm,
        .now_ns = machine_now_ns,
        .birth_ns = machine_birth_ns,
        .wall_ns = clock_wall_ns,
        .random = entropy_read,
        .output_ready = console_output_ready,
        .input_room = input_room,
        .output_idle = console_output_idle,
        .entry_cycles = boot.entry_tsc,
        .waited_cycles = devices_waited_cycles,
        .ns_per_cycle = clock_ns_per_cycle,
        .relaxed = options->relaxed,
        .test_spaces = options->test_spaces,
        .test_resident = options->test_resident,
    };
    int status = proc_resume(&env);
    if (status != 0)
        refuse("the newest generation cannot be resumed", status);
    status = console_init(&console_sink);
    if (status != 0)
        panic("no serial console (error %d)", -status);
    console_announce();
    window_start();
    console_output_ready();
    started_ns = clock_ns();
    is_starting = 0;
}

_Noreturn void kernel_main(const struct boot_info *info) {
    log_set_sink(&log_sink, LOG_NOTICE);
    arch_init(&arch_handlers); /* first, so that all that follows can fail with a report */
    memory_start(info);
    static char text[OPTIONS_SIZE];
    long size = fw_cfg_read_file("opt/revenant/options", text, sizeof text);
    struct options options;
    if (options_parse(&options, size > 0 ? text : "") != 0)
        panic("options: \"%s\": a word in it is not name=value, or its value is out of range", text);
    log_set_sink(&log_sink, options.log_level);
    if (clock_init(proc_attention) != 0)
        panic("no clock");
    if (drivers_init(frame_alloc_contiguous) != 0)
        panic("no devices");
    entropy_init();
    disks_find();
    store_start(&options);
    programs_start(&options);
    notice("generation %llu goes on after %llu us", (unsigned long long)store_generation(),
           (unsigned long long)clock_ns() / 1000);
    proc_run();
}
