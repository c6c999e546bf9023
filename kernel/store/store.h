/*
 * kernel/store/store.h: the persistent tree of pages: open, look up, read verified, commit. Formats: FORMAT.md.
 *
 * Promise: the invariants of FORMAT.md. Knows neither hardware nor page tables: all that it needs comes through struct
 * store_env, so it also builds on the host. Nothing here sleeps; what must wait says -E_AGAIN and calls env->wake
 * later.
 * Called by: pager (all of it), main.c (store_open), tests/host.
 */
#ifndef STORE_H
#define STORE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/list.h"
#include "store/format.h"

enum { STORE_FAR_COUNT_MAX = 8, STORE_IO_PAGES_MAX = 64 };

/* --- what the store needs from below --- */
enum store_op { STORE_READ, STORE_WRITE, STORE_FLUSH };

struct store_io {
    enum store_op op;
    unsigned disk;         /* 0 near, n the n-th far disk that is attached */
    uint64_t sector;
    uint32_t page_count;
    void *page[STORE_IO_PAGES_MAX];
    void (*done)(struct store_io *io, int status); /* called by the environment, exactly once */
    void *owner;
    struct list_node link;
};

struct store_env {
    int (*submit)(struct store_io *io);          /* 0 or -E_INVAL/-E_IO; done comes later or at once */
    void (*poll)(void);                          /* lets completions run; used only while opening */
    /* 4096 bytes, aligned, contents undefined; NULL: none. urgent: a commit needs it */
    void *(*page_alloc)(int urgent);
    void (*page_free)(void *page);
    void (*wake)(const void *key);               /* what -E_AGAIN on key waited for has happened (success or not) */
    uint64_t (*now_ns)(void);                    /* since some moment of this start, for deadlines and retries */
    void (*random)(void *buffer, size_t size);
    /* The BLAKE2b-128 hash of a page, where that is to be had sooner than from blake2b; or NULL. */
    void (*hash_page)(uint8_t *hash, const void *page);
    /* Those of four pages at once, where that takes fewer instructions; or NULL. */
    void (*hash_pages)(uint8_t *const hash[4], const void *const page[4]);
    /* Whether the message has this Ed25519 signature of the key's holder; NULL: it never has. */
    int (*signature_valid)(const uint8_t key[32], const uint8_t signature[64], const void *message, size_t size);
    /* Decompresses (zstd): 1 if that gives `size` bytes; bounded, whatever the input is; NULL: it never does. */
    int (*unpack)(void *to, size_t size, const void *from, size_t from_size);
    void (*notice)(const char *text);            /* one line for people: damage found, store lost, store back */
    unsigned disk_count;                         /* near included */
    uint64_t disk_sectors[1 + STORE_FAR_COUNT_MAX]; /* 0: not attached */
};

/* --- opening --- */
struct store_retention {
    uint32_t count;                              /* newest generations, RETAIN_COUNT_MIN to RETAIN_COUNT_MAX */
    uint32_t hourly, daily;                      /* of those that leave them, the first of so many hours and days */
};

struct store_options {
    int trust_given;
    uint8_t trust[ROOT_HASH_SIZE];               /* the far root record that may be adopted */
    int key_given;
    uint8_t key[PUBLIC_KEY_SIZE];                /* whose signature makes any far root one that may be adopted */
    uint32_t record_version_max;                 /* refuse generations with a newer record layout */
    int retention_given;                         /* else it stays as the root says */
    struct store_retention retention;
    uint64_t packed[2];                          /* of disk 1, first and count: a hint of what its root calls packed */
};

/*
 * Finds near's newest valid root; or, where near is blank and a far disk has a trusted root, formats near and adopts
 * the first such one (its first root is durable when this returns). Uses env->poll; the only function that waits.
 * -E_FOREIGN near is not ours, or no far is a trusted one; -E_VERSION; -E_CORRUPT no valid root; -E_NOENT near blank
 * and nothing to adopt; -E_IO. Nothing is written in any of these cases. Says why through env->notice.
 */
int store_open(const struct store_env *env, const struct store_options *options);
uint64_t store_generation(void);                 /* of the newest durable root */
uint64_t store_mono_ns(void);                    /* of that root */
uint64_t store_wall_ns(void);                    /* of that root, too */
const uint8_t *store_id(void);                   /* near's, STORE_ID_SIZE bytes */

/* --- reading --- */
struct page_key {
    uint64_t space;
    uint64_t page;
};

/* The pointer of a page in the newest tree (that of a running commit included). 0: *pointer set (not present: zeros).
 * -E_AGAIN: a node is being read, *key_out is what wake will name. -E_IO, -E_CORRUPT: a node cannot be had now; a later
 * call tries again. */
int store_lookup(struct page_key key, struct block_ptr_disk *pointer, const void **key_out);

struct store_fetch {
    struct block_ptr_disk pointer;
    void *page;                                  /* 4096 bytes; the store's until done */
    /* 0: verified. -E_IO: no store has it now. -E_CORRUPT: all copies bad */
    void (*done)(struct store_fetch *fetch, int status);
    void *owner;
    struct list_node link;
    unsigned attempt;
};
int store_fetch(struct store_fetch *fetch);      /* 0: done will come. Never calls done before it returns */
/* Whether a fetch would have to ask a far store: a block of one that is neither here nor on its way. */
int store_must_ask(const struct block_ptr_disk *pointer);

/* --- committing: one at a time --- */
struct store_commit_page {
    struct page_key key;
    const void *data;                            /* stable until done() */
    void *owner;
};

struct store_commit {
    /* store_generation() + 1, or equal to it for a root without new pages */
    uint64_t generation;
    uint64_t wall_ns, mono_ns;
    uint64_t page_count;                         /* how many next() will give */
    uint32_t record_version;
    uint32_t flags;                              /* of its record: GENERATION_ROLLBACK, GENERATION_AUTOMATIC */
    uint64_t origin;                             /* with GENERATION_ROLLBACK: whose contents these are */
    const char *tag;                             /* NULL, or 1 to TAG_SIZE_MAX bytes, stable until done() */
    uint64_t tag_generation;                     /* a retained one that gets the tag; 0: this one */
    uint64_t untag_generation;                   /* one that loses its tag; 0: none */
    const struct start_failures_disk *failures;  /* what the root says of failed starts from now on; NULL: as it is */
    int (*next)(struct store_commit *commit, struct store_commit_page *page); /* 1: page set; 0: no more */
    /* Near failed: all is written anew, to other blocks; next() begins with the first page. NULL: a failure is the
     * end. */
    void (*again)(struct store_commit *commit);
    /* its block is on the disk (not yet flushed; with `again` perhaps not for the last time); may be NULL */
    void (*written)(struct store_commit *commit, struct store_commit_page *page);
    /* 0: durable. -E_NOSPACE: near is full although old generations were given up: nothing of this commit was taken,
     * it may be started again. Else nothing was changed, and no more commits can be made: -E_IO only without `again` */
    void (*done)(struct store_commit *commit, int status);
    void *owner;
};

/* 0: done will come. -E_BUSY: one is running. -E_INVAL, -E_IO: near failed before. */
int store_commit_start(struct store_commit *commit);
/* Does CPU work for up to `budget` pages or nodes of the running commit and of localising; 1: there is more to do right
 * now, 0: it waits for completions or has nothing to do. */
int store_work(unsigned budget);
/* The same for what nobody asks for: near becomes complete. When store_work has nothing to do. */
int store_fill(unsigned budget);
uint64_t store_wait_ns(void);                /* store_work wants to be called so soon; UINT64_MAX: no need */
int store_commit_running(void);
/* localised since the last root: worth a root without pages, when idle */
int store_has_unsaved_copies(void);
int store_waits_for_root(void);              /* at once: near becomes complete by it, or soon after */

/* Changes to the tree that have no page data; take effect in the next commit started after the call. -E_LIMIT,
 * -E_AGAIN as above. */
int store_space_clone(uint64_t from, uint64_t to, const void **key_out);
int store_space_drop(uint64_t space);

/* The next commit makes these the kernel, the loader, the resume list (NULL: as it is); stable until its done(). */
struct store_boot_object {
    const void *page[NODE_FANOUT];               /* NULL: zeros */
    uint32_t size;                               /* as the root record says it */
};
void store_boot_replace(const struct store_boot_object *kernel, const struct store_boot_object *loader,
                        const struct store_boot_object *resume);

/* Takes more blocks of near's disk into use, for good with the next commit. Waits for its I/O, as store_open does. */
int store_grow(uint64_t block_count);

/*
 * The records of retained, durable generations after `after`, oldest first: how many of at most `count` were copied.
 * -E_AGAIN as above.
 */
int store_history(uint64_t after, struct generation_disk *record, unsigned count, const void **key_out);

/* Memory: drops clean cached nodes and pages, oldest first; returns how many pages were freed. */
size_t store_shrink(size_t page_count);

/* --- facts --- */
struct store_far_facts {
    uint64_t fetched;                            /* blocks that came */
    uint64_t verified;                           /* pages of them that had their hash */
    uint64_t unused;                             /* blocks that were dropped before anyone wanted them */
};

struct store_facts {
    uint64_t generation, sequence;
    uint64_t near_blocks_total, near_blocks_free;
    /* far_reads: blocks that came; far_used: those that somebody wanted */
    uint64_t near_reads, near_writes, far_reads, far_used, far_requests, far_failures, hash_failures;
    uint64_t packed_count;                       /* blocks read unasked since the adopted root has a resume list */
    struct store_far_facts far[1 + STORE_FAR_COUNT_MAX]; /* by disk */
    uint64_t far_remaining;                      /* blocks of the adopted store that the fill has not come to */
    uint64_t cached_nodes;
    int complete;
};
void store_facts(struct store_facts *facts);

#endif
