/*
 * kernel/pager/internal.h: what the files of this room share; the state table is in pager.h. Nobody else includes this.
 */
#ifndef PAGER_INTERNAL_H
#define PAGER_INTERNAL_H

#include "mm/frame.h"
#include "pager/pager.h"

struct pager_state {
    const struct pager_hooks *hooks;
    struct pager_options options;
    uint64_t epoch;
    uint64_t durable;
    struct space *current;
    struct frame *zero_frame;
    struct list_node dirty, frozen, clean;
    struct list_node taken, taken_records, taken_detached; /* what the running commit has seen */
    uint64_t dirty_count, resident_count, taken_detached_count;
    /* page indexes of the current space that a system call is using: not dropped */
    uint64_t prepared_start, prepared_end;
    uint64_t copied_count, fault_count, commit_count, commit_page_count;
    uint64_t freeze_cycles_last, freeze_cycles_max;
    uint64_t write_fault_cycles, write_fault_count, write_fault_cycles_max;
    uint64_t commit_ns_last;
};
extern struct pager_state pager;

extern const char pager_memory_key; /* its address: who waits for a free frame */

static inline int page_is_dirty(const struct frame *frame) { return frame->epoch == pager.epoch; }
static inline int page_is_frozen(const struct frame *frame) {
    return frame->epoch > pager.durable && frame->epoch != pager.epoch;
}

/* dirty.c */
void page_mark_dirty(struct frame *frame);                  /* clean or new -> dirty, on the list */
void page_detach(struct frame *frame);                      /* frozen: its space has a newer copy now */
/* The mapped page of `entry` gets a frame of its own, dirty in this epoch; the kernel may write it through the
 * direct map. */
enum pager_result page_own(struct space *space, uint64_t address, uint64_t *entry, const void **key);
/* The same, and ring 3 may write. */
enum pager_result page_make_writable(struct space *space, uint64_t address, uint64_t *entry, const void **key);

/* snapshot.c */
int pager_is_committing(void);                              /* or about to, when near has room again */

/* throttle.c */
/* 1: the program makes pages dirty faster than near takes them, and has to wait for *key before it makes one more. */
int throttle(struct space *space, const void **key);
void throttle_count(struct space *space);                   /* one page more is dirty */
void throttle_freeze(void);                                 /* a new epoch */
void throttle_committed(uint64_t page_count, uint64_t duration_ns);
void throttle_init(void);
void throttle_stats(struct machine_stats *stats);

/* evict.c */
struct frame *page_frame_alloc(const void **key);           /* NULL: wait for *key */
int page_memory_make(void);                                 /* 1: something was dropped, try again */
/* nothing can be dropped now: *key is woken when that changes */
void page_memory_wait(const void **key);

/* pagein.c */
void pagein_init(void);
enum pager_result pagein_start(struct space *space, uint64_t address, const struct block_ptr_disk *pointer,
                               const void **key);
/* A node on the way to the page cannot be had now: *key is woken when it is time to look again. */
void pagein_wait_for_node(const struct space *space, uint64_t address, int status, const void **key);
/* what to wait for when it is being loaded, else NULL */
const void *pagein_key(const struct space *space, uint64_t address);
void pagein_forget_space(const struct space *space);        /* what is on its way to it never arrives */
void pagein_retry(void);                                    /* starts again what is due */
uint64_t pagein_deadline_ns(void);

/* snapshot.c */
int snapshot_waits_for_room(void);                          /* an epoch is frozen, and the near store is full */

/* fault.c */
void pager_note_touch(uint64_t space, uint64_t page);       /* for a resume list, if one is wanted */
void page_map(struct space *space, uint64_t address, uint64_t *entry, struct frame *frame); /* read-only */

#endif
