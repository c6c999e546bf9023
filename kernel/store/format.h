/*
 * kernel/store/format.h: the disk structures of FORMAT.md, version 1.
 *
 * Promise: every size and offset is asserted; tools/revenant/format.py says the same (a test compares them).
 * Used by: kernel/store, and through it by nobody else: others see store.h only.
 */
#ifndef STORE_FORMAT_H
#define STORE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

enum {
    BLOCK_SIZE = 4096,
    SECTOR_SIZE = 512,
    SECTORS_PER_BLOCK = BLOCK_SIZE / SECTOR_SIZE,
    FORMAT_VERSION = 1,
    FORMAT_VERSION_MAX = 2, /* that is known: with compressed pages in far stores */
    NODE_FANOUT = 128,
    NODE_FANOUT_BITS = 7,
    SPACE_HEIGHT_MAX = 5,
    DIRECTORY_HEIGHT_MAX = 3,
    HASH_SIZE = 16,
    ROOT_HASH_SIZE = 32,
    STORE_ID_SIZE = 16,
    PUBLIC_KEY_SIZE = 32,
    SIGNATURE_SIZE = 64,
    HEADER_BLOCK = 1,
    LOADER_BLOCK = 2,
    LOADER_BLOCK_COUNT = 16,
    HEADER_COPY_BLOCK = 18,
    RING_FIRST_BLOCK = 32,
    RING_COUNT = 64,
    STORE_BLOCK_COUNT_MIN = 2048,
    RETAIN_COUNT_DEFAULT = 16,
    RETAIN_HOURLY_DEFAULT = 24,
    RETAIN_DAILY_DEFAULT = 7,
    KERNEL_SIZE_MAX = 448 * 1024,
    TAG_SIZE_MAX = 47,
    TAG_COUNT_MAX = 256, /* given by people and programs */
    AUTOMATIC_TAG_COUNT = 4,
    RETAIN_COUNT_MIN = 2, /* the durable generation is not one that leaves */
    RETAIN_COUNT_MAX = 1024,
    RETAIN_HOURLY_MAX = 168,
    RETAIN_DAILY_MAX = 366,
};

#define HEADER_MAGIC 0x44414548544e5652ull /* "RVNTHEAD" */
#define ROOT_MAGIC 0x544f4f52544e5652ull   /* "RVNTROOT" */

enum space_id { SPACE_RECORDS = 0, SPACE_SHARES = 1, SPACE_FIRST_USER = 16 };
enum meta_space_id { META_BITMAP = 0, META_GENERATIONS = 1, META_PRESENCE = 2 /* + store number */ };

enum ptr_flags {
    PTR_LEVEL_MASK = 0x07,
    PTR_COMPRESSED = 0x08,
    PTR_PRESENT = 0x80,
};

struct block_ptr_disk {
    uint64_t where;        /* place (sector) 0-47, store 48-55, flags 56-63 */
    uint64_t birth_length; /* birth 0-47, stored length 48-63 */
    uint8_t hash[HASH_SIZE];
};

struct node_disk {
    struct block_ptr_disk child[NODE_FANOUT];
};

struct header_disk {
    uint64_t magic;
    uint32_t version;
    uint32_t ring_count;
    uint8_t store_id[STORE_ID_SIZE];
    uint64_t block_count;
    uint64_t ring_first;
    uint64_t ring_stride;
    uint64_t created_wall_ns;
    uint8_t zero[416];
    uint8_t hash[ROOT_HASH_SIZE];
};

enum generation_flags {
    GENERATION_TAGGED = 1,
    GENERATION_DROPPED = 2,
    GENERATION_ROLLBACK = 4,
    GENERATION_ADOPTED = 8,
    GENERATION_HOURLY = 16,
    GENERATION_DAILY = 32,
    GENERATION_AUTOMATIC = 64,
};

struct generation_disk {
    uint64_t generation;
    uint64_t wall_ns;
    uint64_t mono_ns;
    uint32_t flags;
    uint32_t tree_height;
    struct block_ptr_disk tree;
    struct block_ptr_disk dead;
    struct block_ptr_disk held;
    uint64_t dead_count;
    uint64_t held_count;
    uint64_t dirty_pages;
    uint64_t origin; /* GENERATION_ROLLBACK: whose contents it has */
    uint8_t zero[48];
    char tag[48];
};

struct list_entry_disk {
    uint64_t block;
    uint64_t birth;
};

enum { LIST_ENTRY_COUNT_MAX = 253 };

struct list_block_disk {
    struct block_ptr_disk next;
    uint32_t count;
    uint32_t zero;
    uint64_t zero2;
    struct list_entry_disk entry[LIST_ENTRY_COUNT_MAX];
};

enum root_flags { ROOT_COMPLETE = 1 };

/* Starts that ended by themselves, badly and at once: a note of `revenant run`, carried on by whoever commits. */
struct start_failures_disk {
    uint32_t start_count; /* in a row */
    uint32_t heal_count;  /* rollbacks in a row that were tried against it */
    uint64_t generation;  /* that the first of these starts went on from */
    uint64_t mono_ns;     /* machine time when this was noted */
};

struct root_disk {
    uint64_t magic;
    uint32_t version;
    uint32_t record_version;
    uint64_t sequence;
    uint64_t generation;
    uint64_t wall_ns;
    uint64_t mono_ns;
    uint8_t store_id[STORE_ID_SIZE];
    uint8_t previous_hash[ROOT_HASH_SIZE];
    struct block_ptr_disk tree;
    struct block_ptr_disk meta;
    struct block_ptr_disk kernel;
    struct block_ptr_disk loader;
    struct block_ptr_disk resume;
    struct block_ptr_disk stores;
    uint32_t kernel_size;
    uint32_t loader_size;
    uint32_t tree_height;
    uint32_t meta_height;
    uint64_t block_count;
    uint64_t free_count;
    uint64_t alloc_next;
    uint32_t retain_count;
    uint32_t flags;
    uint64_t resume_list_size;
    uint32_t retain_hourly;
    uint32_t retain_daily;
    struct start_failures_disk failures;
    uint32_t retain_wanted;
    uint32_t packed_count; /* blocks that a start touches, side by side from the tree's top node on; 0: they are not */
    struct block_ptr_disk stores_copy;
    uint8_t hash[ROOT_HASH_SIZE];
    uint8_t signature[SIGNATURE_SIZE];
};

struct store_entry_disk {
    uint8_t store_id[STORE_ID_SIZE];
    uint8_t root_hash[ROOT_HASH_SIZE];
    uint64_t generation;
    uint64_t block_count;
};

enum { STORE_ENTRY_COUNT_MAX = BLOCK_SIZE / 64 };

#define FORMAT_AT(type, field, offset) _Static_assert(offsetof(struct type, field) == (offset), #type "." #field)
#define FORMAT_SIZE(type, size) _Static_assert(sizeof(struct type) == (size), #type)

FORMAT_SIZE(block_ptr_disk, 32);
FORMAT_AT(block_ptr_disk, birth_length, 8);
FORMAT_AT(block_ptr_disk, hash, 16);
FORMAT_SIZE(node_disk, BLOCK_SIZE);
FORMAT_SIZE(header_disk, SECTOR_SIZE);
FORMAT_AT(header_disk, store_id, 16);
FORMAT_AT(header_disk, block_count, 32);
FORMAT_AT(header_disk, ring_first, 40);
FORMAT_AT(header_disk, ring_stride, 48);
FORMAT_AT(header_disk, created_wall_ns, 56);
FORMAT_AT(header_disk, hash, 480);
FORMAT_SIZE(generation_disk, 256);
FORMAT_AT(generation_disk, flags, 24);
FORMAT_AT(generation_disk, tree, 32);
FORMAT_AT(generation_disk, dead, 64);
FORMAT_AT(generation_disk, held, 96);
FORMAT_AT(generation_disk, dead_count, 128);
FORMAT_AT(generation_disk, dirty_pages, 144);
FORMAT_AT(generation_disk, origin, 152);
FORMAT_AT(generation_disk, tag, 208);
FORMAT_SIZE(list_entry_disk, 16);
FORMAT_SIZE(list_block_disk, BLOCK_SIZE);
FORMAT_AT(list_block_disk, entry, 48);
FORMAT_SIZE(start_failures_disk, 24);
FORMAT_SIZE(root_disk, SECTOR_SIZE);
FORMAT_AT(root_disk, sequence, 16);
FORMAT_AT(root_disk, store_id, 48);
FORMAT_AT(root_disk, previous_hash, 64);
FORMAT_AT(root_disk, tree, 96);
FORMAT_AT(root_disk, meta, 128);
FORMAT_AT(root_disk, kernel, 160);
FORMAT_AT(root_disk, loader, 192);
FORMAT_AT(root_disk, resume, 224);
FORMAT_AT(root_disk, stores, 256);
FORMAT_AT(root_disk, kernel_size, 288);
FORMAT_AT(root_disk, tree_height, 296);
FORMAT_AT(root_disk, block_count, 304);
FORMAT_AT(root_disk, free_count, 312);
FORMAT_AT(root_disk, alloc_next, 320);
FORMAT_AT(root_disk, retain_count, 328);
FORMAT_AT(root_disk, resume_list_size, 336);
FORMAT_AT(root_disk, retain_hourly, 344);
FORMAT_AT(root_disk, failures, 352);
FORMAT_AT(root_disk, retain_wanted, 376);
FORMAT_AT(root_disk, packed_count, 380);
FORMAT_AT(root_disk, stores_copy, 384);
FORMAT_AT(root_disk, hash, 416);
FORMAT_AT(root_disk, signature, 448);
FORMAT_SIZE(store_entry_disk, 64);

static inline int ptr_present(const struct block_ptr_disk *p) { return (int)(p->where >> 63); }
static inline uint64_t ptr_place(const struct block_ptr_disk *p) { return p->where & 0xffffffffffffull; }
static inline uint64_t ptr_block(const struct block_ptr_disk *p) { return ptr_place(p) / SECTORS_PER_BLOCK; }
static inline unsigned ptr_store(const struct block_ptr_disk *p) { return (unsigned)(p->where >> 48) & 0xff; }
static inline unsigned ptr_flags(const struct block_ptr_disk *p) { return (unsigned)(p->where >> 56); }
static inline unsigned ptr_level(const struct block_ptr_disk *p) { return ptr_flags(p) & PTR_LEVEL_MASK; }
static inline uint64_t ptr_birth(const struct block_ptr_disk *p) { return p->birth_length & 0xffffffffffffull; }
static inline int ptr_compressed(const struct block_ptr_disk *p) { return (ptr_flags(p) & PTR_COMPRESSED) != 0; }
/* Where in its first block it begins. */
static inline unsigned ptr_offset(const struct block_ptr_disk *p) {
    return (unsigned)(ptr_place(p) % SECTORS_PER_BLOCK) * SECTOR_SIZE;
}
static inline unsigned ptr_length(const struct block_ptr_disk *p) { return (unsigned)(p->birth_length >> 48); }

#endif
