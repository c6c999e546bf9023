/*
 * kernel/store/internal.h: what the files of this room share: the state of the one store, and each file's functions.
 *
 * Promise: nobody outside kernel/store includes this. An operation that must wait returns -E_AGAIN with nothing half
 * done that making it again would do twice; the newest tree is what the cache and `store.tree` say, dirty nodes
 * included.
 */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include "lib/error.h"
#include "lib/lib.h"
#include "lib/list.h"
#include "store/store.h"

enum tree_id { TREE_MAIN, TREE_META, TREE_COUNT };

/* Levels of nodes: 0 to 5 inside a space (0: a page of the store's own), then the levels of the directory. */
enum { LEVEL_DIRECTORY = SPACE_HEIGHT_MAX, LEVEL_COUNT = LEVEL_DIRECTORY + DIRECTORY_HEIGHT_MAX + 1 };
enum {
    FIXED_BLOCK_COUNT = RING_FIRST_BLOCK + RING_COUNT,
    SPACE_COUNT_MAX = 1 << (NODE_FANOUT_BITS * DIRECTORY_HEIGHT_MAX),
    BITS_PER_PAGE = BLOCK_SIZE * 8,
    COUNTS_PER_PAGE = BLOCK_SIZE / 4,
    RECORDS_PER_TABLE_PAGE = BLOCK_SIZE / 256,
    HOLDER_COUNT_MAX = 1024, /* generations kept although they are not among the newest */
    HASH_GROUP_COUNT = 4,
    SPARE_BLOCK_COUNT = 64, /* kept free for roots without pages, which give old generations up */
    ROOM_SHARE = 8,         /* what only is good to have leaves one eighth of near free */
    REST_COUNT_MAX = 256,   /* copies dropped between two roots */
};

struct node_key {
    enum tree_id tree;
    unsigned level;
    uint64_t space; /* 0 in the directory */
    uint64_t prefix;
};

enum node_state { NODE_LOADING, NODE_FAILED, NODE_CLEAN, NODE_DIRTY, NODE_WRITING };

/* A cached node, or a page of the store's own (level 0). */
struct node {
    struct node *hash_next;
    struct list_node link; /* in the list that its state says */
    struct node_key key;
    enum node_state state;
    int status;                    /* NODE_FAILED: why */
    int orphan;                    /* NODE_LOADING: nobody wants it any more */
    uint64_t operation;            /* that touched it last: not evicted while it runs */
    uint64_t block;                /* NODE_DIRTY: where it will be written, 0: not settled */
    struct block_ptr_disk pointer; /* of the contents on the disk */
    struct node_disk *page;
    struct store_fetch fetch;
};

struct tree {
    struct block_ptr_disk root; /* a placeholder while its node is dirty */
    unsigned height;            /* of the directory */
};

/* How many generations of each kind the next root retains. */
struct retain_limits {
    uint64_t newest, hourly, daily, automatic;
};

enum boot_object { BOOT_KERNEL, BOOT_LOADER, BOOT_RESUME, BOOT_STORES, BOOT_STORES_COPY, BOOT_OBJECT_COUNT };

struct store {
    const struct store_env *env;
    struct store_retention retention; /* as it is wanted */
    struct retain_limits limit;       /* of the running commit */
    struct header_disk header;
    struct root_disk root;  /* the newest durable root */
    uint64_t sequence_max;  /* of all root records seen */
    struct tree tree[TREE_COUNT];
    struct block_ptr_disk boot[BOOT_OBJECT_COUNT];
    uint64_t boot_size[BOOT_RESUME + 1]; /* of kernel, loader and resume list, as the root record says it */
    struct store_entry_disk far[STORE_ENTRY_COUNT_MAX]; /* the table of stores: store number n is far[n - 1] */
    int far_changed;        /* the table is not on the disk yet, twice */
    uint8_t disk_id[1 + STORE_FAR_COUNT_MAX][STORE_ID_SIZE];
    uint64_t free_count, alloc_next;
    uint64_t operation;
    uint64_t space_bound, page_bound; /* the largest that were asked for: they bound the nodes of a commit, as does */
    unsigned height_bound;            /* the greatest height of a space that was met */
    const void *wait_key;   /* set with -E_AGAIN: what it waits for, if that is a node */
    int urgent;             /* allocations may use the commit reserve */
    int draining;           /* the commit waits for the copies that it found: no other is started */
    int settled;            /* it has them: no copy is entered, forgotten or dropped until it has ended */
    int frozen;             /* the meta tree is being written: no changes */
    int unsaved;            /* the meta tree or a boot object differs from the durable one */
    int complete;           /* no far store is needed: said by the next root */
    int broken;             /* near failed: no more commits */
    struct store_facts facts;
    struct store_commit *request; /* the running commit's; NULL: none runs */
};

/* state.c */
extern struct store store;
uint64_t commit_generation(void); /* being built; outside of a commit the durable one */

/* verify.c */
int hash_matches(const struct block_ptr_disk *pointer, const void *page);
void hash_group(uint8_t hash[][HASH_SIZE], const void *const page[], unsigned count);
struct block_ptr_disk pointer_with_hash(uint64_t block, unsigned level, uint64_t birth, const uint8_t *hash);
struct block_ptr_disk pointer_make(uint64_t block, unsigned level, uint64_t birth, const void *page);
struct block_ptr_disk pointer_placeholder(unsigned level);
int pointer_is_placeholder(const struct block_ptr_disk *pointer);
int pointer_is_near(const struct block_ptr_disk *pointer); /* present, and its home is this store */
int pointer_check(const struct block_ptr_disk *pointer, unsigned level);
void pointer_unpack(const struct block_ptr_disk *pointer, void *to, const void *block);
int pointers_translate(struct block_ptr_disk *pointer, unsigned count, unsigned home);
int header_valid(const struct header_disk *header);
int root_valid(const struct root_disk *root, const uint8_t *store_id);
void root_seal(struct root_disk *root);
int block_is_fixed(uint64_t block);
void store_notice(const char *template, ...) __attribute__((format(printf, 1, 2)));

/* cache.c */
void cache_init(void);
void *cache_page_alloc(void);
struct node *cache_find(struct node_key key);
int cache_create(struct node_key key, struct node **out);
int cache_load(struct node_key key, const struct block_ptr_disk *pointer);
void cache_forget(struct node *node);
void cache_forget_space(enum tree_id tree, uint64_t space);
void cache_set_state(struct node *node, enum node_state state, struct list_node *list);
void cache_clean(struct node *node);
void cache_undo(void);
struct list_node *cache_dirty(enum tree_id tree, unsigned level);
struct list_node *cache_placed(enum tree_id tree, unsigned level);
int cache_has_dirty(enum tree_id tree);
int cache_ready(struct node *node); /* 0, -E_AGAIN or its error */

/* tree.c */
int tree_pointer(struct node_key key, struct block_ptr_disk *pointer);
int tree_read(struct node_key key, struct node **out); /* *out NULL: missing, reads as zeros */
int tree_slot(struct node_key key, struct block_ptr_disk **slot);
int tree_modify(struct node_key key, struct node **out);
int tree_set(struct page_key key, const struct block_ptr_disk *pointer);
struct block_ptr_disk *tree_node_slot(const struct node *node);
int tree_space_pointer(enum tree_id tree, uint64_t space, struct block_ptr_disk *pointer);
int tree_space_slot(enum tree_id tree, uint64_t space, struct block_ptr_disk **slot);
void tree_prune(enum tree_id tree);
static inline struct node_key page_of(enum tree_id tree, uint64_t space, uint64_t page) {
    return (struct node_key){tree, 0, space, page};
}

/* alloc.c */
int alloc_block(uint64_t *block);
int alloc_free(uint64_t block);
int alloc_prepare(uint64_t block);
int alloc_rest(uint64_t block);
unsigned alloc_resting(void);
void alloc_rested(void);
int alloc_mark(uint64_t block);
void alloc_avoid(uint64_t block, uint64_t count);
void alloc_avoid_none(void);

/* rebuild.c: the bitmap made anew */
void rebuild_wanted(void);   /* a page of the bitmap is damaged */
int rebuild_is_due(void);
void rebuild_start(void);
int rebuild_step(void);      /* 2: done */
int rebuild_is_running(void); /* nothing may be allocated */
int rebuild_is_reading(void);
void rebuild_undo(void);
void rebuild_init(void);

/* life.c: counts, deaths */
int life_share_read(uint64_t block, uint32_t *count);
int life_share_add(uint64_t block, int change);
int life_release(const struct block_ptr_disk *pointer, enum tree_id tree, uint64_t space, const struct node_disk *node);
int life_die(uint64_t block, uint64_t birth);

/* list.c: dead and held lists being written */
struct list_writer {
    uint64_t generation;       /* whose record gets it; held lists only */
    struct list_block_disk *first, *last; /* in memory, oldest first */
    uint64_t count;            /* entries added */
    struct block_ptr_disk head; /* newest block that is finished */
};
extern struct list_writer list_dead;
int list_prepare(struct list_writer *writer);
int list_add(struct list_writer *writer, uint64_t block, uint64_t birth);
void list_resume(struct list_writer *writer, struct list_block_disk *page);
int list_flush_full(struct list_writer *writer); /* 1: wrote a block */
int list_place(struct list_writer *writer);      /* 1: there was something to settle */
int list_finish(struct list_writer *writer);
void list_drop(struct list_writer *writer);

/* retain.c: the table of generations, and what is free */
int retain_record(uint64_t index, int modify, struct generation_disk **record);
int retain_find(uint64_t generation, uint64_t *index);
void retain_begin(void);
int retain_step(void);      /* 2: done */
int retain_dead_head(void);
int retain_append(const struct generation_disk *record);
int retain_finish(const struct list_writer *dead);
/* What there is to retain, and what a root of a generation gives back. */
struct retain_survey {
    uint64_t record_count;
    uint64_t newest, hourly, daily, automatic; /* records of each kind */
    uint64_t leaving;                          /* whose lists are worked off */
    uint64_t entry_count;                      /* on those lists */
    uint64_t freeable;                         /* blocks that are free before it needs any, for certain */
    uint64_t winnable;                         /* at most, by roots without pages that give up all that may be */
};
int retain_survey(uint64_t generation, struct retain_survey *survey);
int retain_scan(uint64_t *count);
void retain_forget(void);
int retain_is_reading(void);
void retain_undo(void);
void retain_init(void);

/* tag.c: which generations are kept although they are not among the newest */
enum { GENERATION_HOLDERS = GENERATION_TAGGED | GENERATION_HOURLY | GENERATION_DAILY };
void tag_set(struct generation_disk *record, const char *tag);
int tag_keep(void);    /* in a commit, before retention: what is kept from now on */
int tag_limits_lower(const struct retain_survey *survey); /* 0: there is nothing that could go */
void tag_limits_set(void);  /* what the commit that begins retains */
int tag_let_go(void);  /* after it: what is kept no longer; freed by the next commit */

/* write.c: the commit's writes */
enum write_kind { WRITE_DATA, WRITE_NODE, WRITE_FREE };
int write_room(void);
void write_page(uint64_t block, void *data, enum write_kind kind, const struct store_commit_page *page);
void write_push(void);
void write_init(void);
unsigned write_in_flight(void);
int write_status(void);
void write_begin(struct store_commit *commit);
int write_barrier(enum store_op op, uint64_t block, void *page); /* starts one flush or block write alone */

/* fetch.c */
void fetch_init(void);
void fetch_pump(void);
int fetch_is_ready(void);   /* the pump has something to do */
unsigned fetch_count(void); /* that are not done */
void fetch_node_loaded(void);
void fetch_hedge(void);
uint64_t fetch_deadline_ns(void); /* when it is due; it may have passed */
int disk_serves(unsigned disk, unsigned home);
int fetch_can_ask(unsigned home);
void fetch_ahead_done(unsigned disk, unsigned home, uint64_t first, unsigned block_count, int status);

int fetch_keep(const struct block_ptr_disk *pointer);
int fetch_unasked(unsigned home, uint64_t from, uint64_t distance, unsigned room);
void fetch_nodes_ahead(const struct block_ptr_disk *pointer, int is_missing);

/* attach.c: which store each far disk is */
#define FAR_LATE_NS 350000000ull /* without an answer: another one is asked, where there is one */
#define PATIENCE_NS 10000000000ull /* for a far disk that no other one can do for */
void attach_init(const struct store_options *options);
void attach_step(void);
void attach_wait(uint64_t limit_ns);
void attach_all(uint64_t limit_ns);
void attach_later(unsigned disk, const char *why);
uint64_t attach_deadline_ns(void);
const struct store_entry_disk *attach_entry(unsigned disk, const struct header_disk *header);
void attach_known(unsigned disk, const struct header_disk *header);

/* ahead.c: blocks of far stores, raw, before anyone has asked for each of them */
enum ahead_state { AHEAD_NONE, AHEAD_LOADING, AHEAD_HERE };
void ahead_init(void);
unsigned ahead_start(unsigned disk, unsigned home, uint64_t first, unsigned count, int is_paced);
enum ahead_state ahead_find(unsigned home, uint64_t block, const void **page, unsigned *disk);
void ahead_touch(unsigned home, uint64_t block);
void ahead_drop(unsigned home, uint64_t block);
void *ahead_take(unsigned home, uint64_t block);
size_t ahead_shrink(size_t page_count);
int ahead_is_loading(void);
uint64_t ahead_deadline_ns(void);
int ahead_is_stuck(unsigned disk);
uint64_t ahead_answered_ns(unsigned disk);
void ahead_hedge(unsigned (*instead)(unsigned disk, unsigned home),
                 int (*waits)(unsigned home, uint64_t first, unsigned block_count));

/* pace.c: how much of what nobody waits for may be on its way */
enum { PACE_WINDOW_MAX = 256 };
void pace_init(void);
unsigned pace_room(unsigned disk, uint64_t distance);
unsigned pace_in_flight(unsigned disk);
void pace_started(unsigned disk, unsigned block_count);
void pace_ended(unsigned disk, unsigned block_count, uint64_t response_ns);

/* copy.c: localising */
int copy_offer(const struct block_ptr_disk *pointer, const void *page, int is_ahead); /* 1: there is or will be one */
const void *copy_page(unsigned home, uint64_t far_block); /* the contents of a copy on its way; NULL: there is none */
int copy_step(void);
void copy_drain(void);
int copy_settled(void);
int copy_busy(void);
int copy_is_full(void);     /* another one had better wait, or would not be made */
uint64_t copy_key(const struct block_ptr_disk *pointer); /* stands for the far block, with these functions */
int copy_find(unsigned home, uint64_t far_block, uint64_t *near_block);
int copy_has_part(unsigned home, uint64_t far_block); /* of a block as it is read */
int copy_set(unsigned home, uint64_t far_block, uint64_t near_block);
void copy_init(void);
void copy_used(unsigned home, uint64_t far_block);
int copy_give_up(void); /* 1: some go with the root that is being built */
int copy_is_writing(void);
void copy_undo(void);
void copy_bad(unsigned home, uint64_t far_block);

/* fill.c */
void fill_init(const struct root_disk *root);
void fill_adopt(const struct root_disk *adopted);
int fill_is_known(void);
void fill_doubt(void);
uint64_t fill_retry_ns(void);
int fill_waits_for_root(void);
uint64_t fill_remaining(void);

/* clone.c: clones and drops of spaces */
uint64_t clone_alias(uint64_t space);
int clone_step(void); /* 2: all queued operations are applied */
void clone_own(uint64_t generation);
void clone_begin(void);
int clone_pending(void);
int clone_is_reading(void);
void clone_done(void);
void clone_undo(void);
void clone_init(void);

/* boot.c */
int boot_step_commit(void); /* in a commit: 2: done */
void boot_commit_begin(void);
int boot_step_idle(void);
uint64_t boot_retry_ns(void);
int boot_ready(void);       /* a commit would make near more independent */
unsigned boot_fetch_count(void); /* for which nobody waits */
void boot_init(int installed);
void boot_uninstalled(void); /* the loader area and block 0 are not what the loader object says */

/* replace.c */
int replace_step(void);
int replace_is_reading(void);
void replace_done(void);
void replace_undo(void);
uint64_t replace_bound(void);
void replace_init(void);

/* bound.c */
int bound_fits(const struct retain_survey *survey, int has_shares); /* the running commit finds room */
int bound_in_vain(const struct retain_survey *survey, int has_shares); /* nor if all that may be is given up */

/* commit.c */
struct store_commit commit_without_pages(void); /* for the caller to complete */
int commit_step(void);
uint64_t commit_retry_ns(void);
void commit_init(void);

/* sync.c */
/* A read or write that is waited for. One that is not waited for any more keeps its page until the device has
 * answered. */
struct sync_io {
    struct store_io io;
    int used, pending, abandoned, status;
};
void sync_init(void);
struct sync_io *sync_read(unsigned disk, uint64_t block);
int sync_wait(struct sync_io *sync);
void sync_end(struct sync_io *sync);
int sync_run(enum store_op op, unsigned disk, uint64_t block, void *page);
int header_write(uint64_t block);
void header_seal(void);

/* view.c */
/* What was found on one disk. */
struct disk_view {
    int blank, foreign;    /* blocks 0, 1, 18 are zero; or hold something else */
    int installed;         /* block 0 holds a boot record */
    int header_copies;     /* bit 0: block 1 is valid, bit 1: block 18 */
    int late;              /* it was not waited for any longer */
    struct header_disk header;
    struct root_disk first_slot; /* of a far disk's ring, as it was read */
    unsigned root_count;
    struct root_disk root[RING_COUNT]; /* valid ones, newest first */
};
extern struct disk_view view; /* of the disk that was looked at last */
void view_wait_until(uint64_t ns);
int view_header(unsigned disk);
int view_ring(unsigned disk);
int view_disk(unsigned disk, const struct store_options *options);
int view_first_slot_is(const uint8_t *hash);
const char *view_disk_name(unsigned disk);

/* trust.c */
int trust_has(const struct store_options *options, const struct root_disk *root);
const char *trust_reason(const struct store_options *options); /* why it has not */
int trust_may_follow(const struct store_options *options, unsigned disk, const struct store_entry_disk *entry,
                     const struct root_disk *root, unsigned count);

/* root.c */
void root_restore(const struct root_disk *root);
void root_take(const struct root_disk *root);
int root_verify_top(enum tree_id tree);
int root_read_table(unsigned disk, const struct root_disk *root, struct store_entry_disk *table);

/* adopt.c */
int store_adopt(const struct store_options *options);

#endif
