/*
 * kernel/pager/pagein.c: pages on their way from a store to RAM: state "loading" of pager.h.
 *
 * Promise: a page is mapped only after the store has verified it; it is fetched once, however many threads want it.
 * When no store has it, only the threads that touch it wait, the console is told once, and it is tried again until it
 * comes.
 * Called by: fault.c, snapshot.c (retries). Context: kernel, interrupts off; completions in interrupts.
 */
#include "lib/error.h"
#include "lib/lib.h"
#include "pager/internal.h"

enum { PAGEIN_COUNT_MAX = 64, STALE_SHARE = 32 /* a good list leaves less than this part of its pages to misses */ };
#define PAGEIN_RETRY_NS 250000000ull

struct pagein {
    struct store_fetch fetch;
    struct space *space;
    uint64_t address;
    struct frame *frame;
    uint64_t retry_ns; /* 0: being fetched; else when to try again */
    int told;
    struct list_node link;
};

static struct pagein pool[PAGEIN_COUNT_MAX];
static struct list_node unused, active;
static unsigned failed_count;
static uint64_t missed_count; /* pages that the start had to ask a far store for */
static int start_is_over;
static uint64_t node_retry_ns; /* 0: nobody waits for a node that failed */

void pagein_init(void) {
    list_init(&unused);
    list_init(&active);
    for (unsigned i = 0; i < PAGEIN_COUNT_MAX; i++)
        list_append(&unused, &pool[i].link);
}

static void pagein_end(struct pagein *pagein) {
    list_remove(&pagein->link);
    list_append(&unused, &pagein->link);
    pager.hooks->wake(pagein);
    pager.hooks->wake(&unused);
}

static void tell_absent(const struct space *space, uint64_t address, const char *what, int status) {
    notice("space %llu, page 0x%llx: %s %s; the program that touched it waits", (unsigned long long)space->id,
           (unsigned long long)(address >> FRAME_SHIFT), what,
           status == -E_CORRUPT ? "is damaged in every copy" : "is in no store that answers");
}

static void pagein_forget(struct pagein *pagein) {
    frame_free(pagein->frame);
    pagein_end(pagein); /* who has touched it meanwhile asks for it now */
}

static void pagein_failed(struct pagein *pagein, int status) {
    if (pagein->space == NULL) {
        pagein_forget(pagein);
        return;
    }
    trace(TRACE_PAGE_ABSENT, (uint32_t)-status, pagein->address, pagein->space->id);
    if (!pagein->told)
        tell_absent(pagein->space, pagein->address, "it", status);
    pagein->told = 1;
    pagein->retry_ns = pager.hooks->now_ns() + PAGEIN_RETRY_NS;
    failed_count++;
    pager.hooks->attention();
}

static void pagein_done(struct store_fetch *fetch, int status) {
    struct pagein *pagein = fetch->owner;
    if (status != 0) {
        pagein_failed(pagein, status);
        return;
    }
    if (pagein->space == NULL) {
        pagein_forget(pagein);
        return;
    }
    if (pagein->told)
        notice("space %llu, page 0x%llx is here; the program goes on", (unsigned long long)pagein->space->id,
               (unsigned long long)(pagein->address >> FRAME_SHIFT));
    uint64_t *entry = space_entry(pagein->space, pagein->address, 0);
    check(!(*entry & PTE_PRESENT)); /* whoever wants it waits, also to discard it */
    page_map(pagein->space, pagein->address, entry, pagein->frame);
    pagein_end(pagein);
}

static void pagein_fetch(struct pagein *pagein, const struct block_ptr_disk *pointer) {
    pagein->retry_ns = 0;
    pagein->fetch = (struct store_fetch){
        .pointer = *pointer, .page = frame_data(pagein->frame), .done = pagein_done, .owner = pagein};
    int status = store_fetch(&pagein->fetch);
    if (status != 0)
        pagein_failed(pagein, status);
}

static struct pagein *pagein_begin(struct space *space, uint64_t address, struct frame *frame,
                                   const struct block_ptr_disk *pointer) {
    struct pagein *pagein = list_entry(list_pop(&unused), struct pagein, link);
    list_append(&active, &pagein->link);
    pagein->space = space;
    pagein->address = address & ~(uint64_t)(FRAME_SIZE - 1);
    pagein->frame = frame;
    pagein->told = 0;
    if (!start_is_over)
        missed_count += (uint64_t)store_must_ask(pointer);
    trace(TRACE_PAGE_IN, ptr_store(pointer), pagein->address, space->id);
    pagein_fetch(pagein, pointer);
    return pagein;
}

void pager_start_over(void) {
    struct store_facts facts;
    store_facts(&facts);
    start_is_over = 1;
    if (missed_count * STALE_SHARE > facts.packed_count && facts.packed_count != 0)
        notice("the resume list is stale: %llu pages that this start asked for were not in it; publish with --record",
               (unsigned long long)missed_count);
}

enum pager_result pagein_start(struct space *space, uint64_t address, const struct block_ptr_disk *pointer,
                               const void **key) {
    *key = &unused;
    if (list_empty(&unused))
        return PAGER_WAIT;
    struct frame *frame = page_frame_alloc(key);
    if (frame == NULL)
        return PAGER_WAIT;
    *key = pagein_begin(space, address, frame, pointer);
    return PAGER_WAIT;
}

void pagein_wait_for_node(const struct space *space, uint64_t address, int status, const void **key) {
    static const struct space *told_space;
    static uint64_t told_address;
    if (told_space != space || told_address != address)
        tell_absent(space, address, "a node of the tree above it", status);
    told_space = space;
    told_address = address;
    node_retry_ns = pager.hooks->now_ns() + PAGEIN_RETRY_NS;
    pager.hooks->attention();
    *key = &node_retry_ns;
}

const void *pagein_key(const struct space *space, uint64_t address) {
    list_for_each(node, &active) {
        struct pagein *pagein = list_entry(node, struct pagein, link);
        if (pagein->space == space && pagein->address >> FRAME_SHIFT == address >> FRAME_SHIFT)
            return pagein;
    }
    return NULL;
}

void pagein_forget_space(const struct space *space) {
    for (struct list_node *node = active.next, *next; node != &active; node = next) {
        struct pagein *pagein = list_entry(node, struct pagein, link);
        next = node->next;
        if (pagein->space != space)
            continue;
        pagein->space = NULL; /* a fetch under way ends by itself */
        if (pagein->retry_ns != 0) {
            failed_count--;
            pagein_forget(pagein);
        }
    }
}

void pagein_retry(void) {
    if (failed_count == 0 && node_retry_ns == 0)
        return;
    uint64_t now = pager.hooks->now_ns();
    if (node_retry_ns != 0 && node_retry_ns <= now) {
        node_retry_ns = 0;
        pager.hooks->wake(&node_retry_ns);
    }
    list_for_each(node, &active) {
        struct pagein *pagein = list_entry(node, struct pagein, link);
        if (pagein->retry_ns != 0 && pagein->retry_ns <= now) {
            struct block_ptr_disk pointer = pagein->fetch.pointer;
            failed_count--;
            pagein_fetch(pagein, &pointer);
        }
    }
}

uint64_t pagein_deadline_ns(void) {
    uint64_t deadline = node_retry_ns != 0 ? node_retry_ns : UINT64_MAX;
    if (failed_count == 0)
        return deadline;
    list_for_each(node, &active) {
        struct pagein *pagein = list_entry(node, struct pagein, link);
        if (pagein->retry_ns != 0 && pagein->retry_ns < deadline)
            deadline = pagein->retry_ns;
    }
    return deadline;
}
