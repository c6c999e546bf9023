/*
 * kernel/pager/snapshot.c: freeze and commit: from dirty pages to a durable generation.
 *
 * Invariants: one commit at a time; generation g holds exactly what was written before the freeze of epoch g; nothing
 * that waits on memory is needed to finish a commit; nothing dirty and nothing asked for: nothing written. The pause is
 * freeze(): its cost depends on neither mapped nor dirty pages nor spaces.
 * Called by: proc (pager_work before each return to ring 3 and when idle). Context: kernel, interrupts off.
 */
#include "abi/syscall.h"
#include "lib/error.h"
#include "lib/lib.h"
#include "pager/internal.h"

#define COPIES_INTERVAL_NS 250000000ull /* between roots that only record localised copies */
#define FULL_RETRY_NS 1000000000ull
#define STRETCHED_MAX_NS 50000000ull
enum {
    FILL_BUDGET = 8,
    FILL_SHARE = 8,   /* of a busy machine's time an eighth is for what nobody asks for */
    COMMIT_SHARE = 8, /* and an eighth for commits: a short interval is stretched, up to STRETCHED_MAX_NS */
};

struct pager_state pager;

static struct store_commit commit;
static int wanted;          /* a snapshot was asked for since the last freeze */
static int frozen_waiting;  /* a frozen epoch that the store had no room for yet */
static uint64_t freeze_ns, retry_ns;
static uint64_t commit_work_ns; /* that the last commit has taken from programs */
static uint64_t fill_due_ns;  /* 0: there is nothing to do for it now */
static char tag[TAG_SIZE_MAX + 1]; /* of the next generation, or of the one being committed */
static uint32_t tag_flags;

void pager_init(const struct pager_hooks *hooks, const struct pager_options *options) {
    pager = (struct pager_state){.hooks = hooks, .options = *options,
                                 .durable = store_generation(), .epoch = store_generation() + 1};
    list_init(&pager.dirty);
    list_init(&pager.frozen);
    list_init(&pager.clean);
    list_init(&pager.taken);
    list_init(&pager.taken_records);
    list_init(&pager.taken_detached);
    pagein_init();
    pager.zero_frame = frame_alloc(FRAME_KERNEL, 1);
    check(pager.zero_frame != NULL);
    memset(frame_data(pager.zero_frame), 0, FRAME_SIZE);
    freeze_ns = hooks->now_ns();
    throttle_init();
}

void pager_switch(struct space *space) {
    pager.prepared_start = pager.prepared_end = 0;
    if (space->epoch != pager.epoch) {
        space_protect(space);
        space->epoch = pager.epoch;
    }
    pager.current = space;
    paging_load(space->root);
}

/* --- the commit's view of the frozen pages --- */

static int frozen_next(struct store_commit *c, struct store_commit_page *page) {
    (void)c;
    struct list_node *node = list_pop(&pager.frozen);
    if (node == NULL)
        return 0;
    struct frame *frame = list_entry(node, struct frame, link);
    frame->taken = 1;
    if (frame->kind == FRAME_RECORD) {
        list_append(&pager.taken_records, &frame->link);
    } else if (frame->entry != NULL) {
        list_append(&pager.taken, &frame->link);
    } else {
        list_append(&pager.taken_detached, &frame->link);
        pager.taken_detached_count++;
    }
    *page = (struct store_commit_page){.key = {frame->space, frame->page}, .data = frame_data(frame)};
    return 1;
}

/* The commit could not be finished and begins anew. */
static void frozen_again(struct store_commit *c) {
    trace(TRACE_COMMIT_AGAIN, 0, c->generation, 0);
    struct list_node *const taken[] = {&pager.taken, &pager.taken_records, &pager.taken_detached};
    struct list_node *node;
    for (unsigned i = 0; i < 3; i++) {
        while ((node = list_pop(taken[i])) != NULL) {
            list_entry(node, struct frame, link)->taken = 0;
            list_append(&pager.frozen, node);
        }
    }
    pager.taken_detached_count = 0;
}

/* All that the commit has taken is durable: O(1) but for the records. */
static void taken_release(void) {
    list_append_all(&pager.clean, &pager.taken);
    frame_free_all(&pager.taken_detached, pager.taken_detached_count);
    pager.taken_detached_count = 0;
    while (list_pop(&pager.taken_records) != NULL)
        continue;
}

/* The store keeps what it has, this epoch stays frozen, and whoever dirties more waits. */
static void near_full(const struct store_commit *c) {
    frozen_waiting = c->generation > pager.durable;
    trace(TRACE_NEAR_FULL, 0, c->generation, 0);
    if (retry_ns == 0)
        notice("near store is full: nothing is lost, but programs wait; "
               "stop the machine and let `revenant grow` enlarge it");
    retry_ns = pager.hooks->now_ns() + FULL_RETRY_NS;
}

static void commit_done(struct store_commit *c, int status) {
    if (status == -E_NOSPACE) {
        near_full(c);
        return;
    }
    if (status != 0)
        pager.hooks->stop("no snapshot can be written any more: the next start goes on from the newest one", status);
    taken_release();
    if (c->tag != NULL)
        tag[0] = 0;
    retry_ns = 0; /* the next time that it is full is told again */
    pager.commit_count++;
    pager.commit_ns_last = pager.hooks->now_ns() - freeze_ns;
    trace(TRACE_DURABLE, (uint32_t)(pager.commit_ns_last / 1000), c->generation, c->page_count);
    throttle_committed(c->page_count, pager.commit_ns_last);
    pager.durable = c->generation;
    pager.hooks->durable(c->generation);
    pager.hooks->wake(&pager_memory_key);
    pager.hooks->attention();
}

/* --- freeze --- */

static void commit_start(void) {
    frozen_waiting = 0;
    check(store_commit_start(&commit) == 0);
}

int snapshot_waits_for_room(void) { return frozen_waiting; }

static void freeze(void) {
    freeze_ns = pager.hooks->now_ns();
    commit_work_ns = 0;
    uint64_t start = arch_cycles();
    trace(TRACE_FREEZE, 0, pager.epoch, pager.dirty_count);
    pager.hooks->freezing();
    list_take(&pager.frozen, &pager.dirty);
    commit = (struct store_commit){.generation = pager.epoch, .mono_ns = freeze_ns, .page_count = pager.dirty_count,
                                   .record_version = RECORD_VERSION,
                                   .next = frozen_next, .again = frozen_again, .done = commit_done};
    pager.dirty_count = 0;
    pager.epoch++;
    throttle_freeze();
    if (pager.current != NULL)
        pager_switch(pager.current);
    commit.wall_ns = pager.hooks->wall_ns();
    if (tag[0] != 0) {
        commit.tag = tag;
        commit.flags = tag_flags;
    }
    pager.commit_page_count += commit.page_count;
    wanted = 0;
    commit_start();
    pager.freeze_cycles_last = arch_cycles() - start;
    if (pager.freeze_cycles_last > pager.freeze_cycles_max)
        pager.freeze_cycles_max = pager.freeze_cycles_last;
    trace(TRACE_COMMIT, (uint32_t)pager.freeze_cycles_last, commit.generation, commit.page_count);
}

/* A root that records localised copies; no freeze, no new generation. */
static void commit_copies(void) {
    freeze_ns = pager.hooks->now_ns();
    commit = (struct store_commit){.generation = store_generation(), .wall_ns = pager.hooks->wall_ns(),
                                   .mono_ns = store_mono_ns(), .record_version = RECORD_VERSION,
                                   .next = frozen_next, .again = frozen_again, .done = commit_done};
    commit_start();
}

int pager_is_committing(void) { return store_commit_running() || frozen_waiting; }

void pager_want_commit(void) {
    if (!wanted)
        pager.hooks->attention();
    wanted = 1;
}

int pager_tag(const char *name, int automatic) {
    if (tag[0] != 0)
        return -E_BUSY;
    check(strlen(name) <= TAG_SIZE_MAX);
    memcpy(tag, name, strlen(name) + 1);
    tag_flags = automatic ? GENERATION_AUTOMATIC : 0;
    pager_want_commit();
    return 0;
}

static uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

static uint64_t snapshot_due_ns(void) {
    if (wanted)
        return 0;
    if (pager.dirty_count == 0 || pager.options.interval_ns == 0)
        return UINT64_MAX;
    uint64_t affordable_ns = earlier(commit_work_ns * COMMIT_SHARE, STRETCHED_MAX_NS);
    return freeze_ns + later(pager.options.interval_ns, affordable_ns);
}

static uint64_t copies_due_ns(void) {
    if (store_waits_for_root() && retry_ns == 0)
        return 0;
    uint64_t affordable_ns = pager.commit_ns_last * COMMIT_SHARE; /* a commit may wait long for its flushes */
    return store_has_unsaved_copies() ? freeze_ns + later(COPIES_INTERVAL_NS, affordable_ns) : UINT64_MAX;
}

/* In small pieces: what somebody waits for comes before the next. */
static int fill(uint64_t now, int idle) {
    if (!pager.options.fill || (!idle && now < fill_due_ns))
        return 0;
    int more = store_fill(FILL_BUDGET);
    fill_due_ns = more ? now + (pager.hooks->now_ns() - now) * FILL_SHARE : 0;
    return more && idle;
}

/* The commit's next piece. What it does while nobody else would run costs nothing. */
static int commit_work(unsigned budget, int idle) {
    if (idle || !store_commit_running())
        return store_work(budget);
    uint64_t start_ns = pager.hooks->now_ns();
    int more = store_work(budget);
    commit_work_ns += pager.hooks->now_ns() - start_ns;
    return more;
}

int pager_work(unsigned budget, int idle) {
    pagein_retry();
    int more = commit_work(budget, idle);
    uint64_t now = pager.hooks->now_ns();
    if (!more)
        more = fill(now, idle);
    if (store_commit_running())
        return more;
    if (frozen_waiting) {
        if (now >= retry_ns)
            commit_start();
        return more;
    }
    if (now >= snapshot_due_ns())
        freeze();
    else if (now >= copies_due_ns())
        commit_copies();
    else
        return more;
    return 1;
}

uint64_t pager_deadline_ns(void) {
    uint64_t deadline = pagein_deadline_ns(), store_ns = store_wait_ns();
    if (store_ns != UINT64_MAX)
        deadline = earlier(deadline, pager.hooks->now_ns() + store_ns);
    if (store_commit_running())
        return deadline;
    if (frozen_waiting)
        return earlier(deadline, retry_ns); /* nothing else is begun before */
    if (fill_due_ns != 0)
        deadline = earlier(deadline, fill_due_ns);
    return earlier(deadline, earlier(snapshot_due_ns(), copies_due_ns()));
}

int pager_describe(char *text, size_t size) {
    if (pager.hooks == NULL)
        return format(text, size, "no program has been resumed yet");
    static const char *const doing[] = {"nothing is being committed", "is being committed", "waits for room in near"};
    unsigned state = frozen_waiting ? 2 : store_commit_running();
    int length = format(text, size, "generation %lu is durable; ", pager.durable);
    if (state != 0)
        length += format(text + length, size - (size_t)length, "generation %lu, %lu pages, ", commit.generation,
                         commit.page_count);
    return length + format(text + length, size - (size_t)length, "%s; %lu pages dirty since", doing[state],
                           pager.dirty_count);
}

uint64_t pager_epoch(void) { return pager.epoch; }
uint64_t pager_durable(void) { return pager.durable; }

void pager_stats(struct machine_stats *stats) {
    struct store_facts facts;
    store_facts(&facts);
    stats->generation = pager.durable;
    stats->epoch = pager.epoch;
    stats->frames_total = frame_count_total();
    stats->frames_free = frame_count_free();
    stats->pages_dirty = pager.dirty_count;
    stats->pages_resident = pager.resident_count;
    stats->faults = pager.fault_count;
    stats->pages_copied = pager.copied_count;
    stats->commits = pager.commit_count;
    stats->commit_pages = pager.commit_page_count;
    stats->commit_ns_last = pager.commit_ns_last;
    stats->freeze_cycles_last = pager.freeze_cycles_last;
    stats->freeze_cycles_max = pager.freeze_cycles_max;
    stats->write_fault_cycles = pager.write_fault_cycles;
    stats->write_fault_count = pager.write_fault_count;
    stats->write_fault_cycles_max = pager.write_fault_cycles_max;
    stats->near_reads = facts.near_reads;
    stats->near_writes = facts.near_writes;
    stats->far_reads = facts.far_reads;
    stats->far_requests = facts.far_requests;
    stats->far_used = facts.far_used;
    stats->far_remaining = facts.far_remaining;
    stats->complete = (uint64_t)facts.complete;
    for (unsigned i = 0; i < STORE_FAR_COUNT_MAX; i++)
        stats->far[i] =
            (struct far_stats){facts.far[i + 1].fetched, facts.far[i + 1].verified, facts.far[i + 1].unused};
    stats->near_blocks_total = facts.near_blocks_total;
    stats->near_blocks_free = facts.near_blocks_free;
    throttle_stats(stats);
}
