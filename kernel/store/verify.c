/*
 * kernel/store/verify.c: what a hash promises, and what a pointer, a header and a root record must look like.
 *
 * Promise: nothing that comes from a disk gets past these checks unseen; none of them changes state or waits.
 * Called by: every file of this room.
 */
#include "store/internal.h"

static void page_hash(uint8_t *hash, const void *page) {
    if (store.env->hash_page != NULL)
        store.env->hash_page(hash, page);
    else
        blake2b(hash, HASH_SIZE, page, BLOCK_SIZE);
}

int hash_matches(const struct block_ptr_disk *pointer, const void *page) {
    uint8_t hash[HASH_SIZE];
    page_hash(hash, page);
    return memcmp(hash, pointer->hash, sizeof hash) == 0;
}

/* The hashes of at most HASH_GROUP_COUNT pages; at once where the environment can, for two that takes longer. */
void hash_group(uint8_t hash[][HASH_SIZE], const void *const page[], unsigned count) {
    uint8_t unused[HASH_SIZE], *to[HASH_GROUP_COUNT];
    const void *from[HASH_GROUP_COUNT];
    if (count <= 2 || store.env->hash_pages == NULL) {
        for (unsigned i = 0; i < count; i++)
            page_hash(hash[i], page[i]);
        return;
    }
    for (unsigned i = 0; i < HASH_GROUP_COUNT; i++) {
        to[i] = i < count ? hash[i] : unused;
        from[i] = page[i < count ? i : 0];
    }
    store.env->hash_pages(to, from);
}

struct block_ptr_disk pointer_with_hash(uint64_t block, unsigned level, uint64_t birth, const uint8_t *hash) {
    struct block_ptr_disk pointer;
    pointer.where = block * SECTORS_PER_BLOCK | (uint64_t)(PTR_PRESENT | level) << 56;
    pointer.birth_length = birth | (uint64_t)BLOCK_SIZE << 48;
    memcpy(pointer.hash, hash, HASH_SIZE);
    return pointer;
}

struct block_ptr_disk pointer_make(uint64_t block, unsigned level, uint64_t birth, const void *page) {
    uint8_t hash[HASH_SIZE];
    page_hash(hash, page);
    return pointer_with_hash(block, level, birth, hash);
}

/* Stands in a dirty parent for a dirty child: block 0 is never a node's place. */
struct block_ptr_disk pointer_placeholder(unsigned level) {
    return (struct block_ptr_disk){.where = (uint64_t)(PTR_PRESENT | level) << 56};
}

int pointer_is_placeholder(const struct block_ptr_disk *pointer) {
    return ptr_present(pointer) && ptr_store(pointer) == 0 && ptr_place(pointer) == 0;
}

int pointer_is_near(const struct block_ptr_disk *pointer) {
    return ptr_present(pointer) && ptr_store(pointer) == 0 && ptr_place(pointer) != 0;
}

int block_is_fixed(uint64_t block) {
    if (block < RING_FIRST_BLOCK)
        return 1;
    uint64_t offset = block - RING_FIRST_BLOCK;
    return offset % store.header.ring_stride == 0 && offset / store.header.ring_stride < RING_COUNT;
}

static int whole_check(const struct block_ptr_disk *pointer) {
    return ptr_length(pointer) == BLOCK_SIZE && ptr_offset(pointer) == 0;
}

/* A page; it lies in one block. */
static int compressed_check(const struct block_ptr_disk *pointer) {
    return ptr_level(pointer) == 0 && ptr_length(pointer) > 0 &&
           ptr_offset(pointer) + ptr_length(pointer) <= BLOCK_SIZE;
}

/* What a pointer names, out of the block that it lies in. What makes no sense is zeros, which do not have its hash. */
void pointer_unpack(const struct block_ptr_disk *pointer, void *to, const void *block) {
    if (!ptr_compressed(pointer))
        memcpy(to, block, BLOCK_SIZE);
    else if (!store.env->unpack(to, BLOCK_SIZE, (const uint8_t *)block + ptr_offset(pointer), ptr_length(pointer)))
        memset(to, 0, BLOCK_SIZE);
}

/* A present pointer as it stands in a verified node, numbers translated. */
int pointer_check(const struct block_ptr_disk *pointer, unsigned level) {
    unsigned home = ptr_store(pointer);
    if (ptr_compressed(pointer) && (home == 0 || store.env->unpack == NULL))
        return -E_VERSION;
    if (ptr_level(pointer) != level || (ptr_compressed(pointer) ? !compressed_check(pointer) : !whole_check(pointer)))
        return -E_CORRUPT;
    if (home > STORE_ENTRY_COUNT_MAX)
        return -E_CORRUPT;
    if (home == 0 && block_is_fixed(ptr_block(pointer)))
        return -E_CORRUPT;
    uint64_t block_count = home == 0 ? store.header.block_count : store.far[home - 1].block_count;
    return ptr_block(pointer) < block_count ? 0 : -E_CORRUPT;
}

/*
 * Numbers of a node from store `home` become ours: a table of stores is its far store followed by that one's own
 * table, so number k of store n is our number n + k.
 */
int pointers_translate(struct block_ptr_disk *pointer, unsigned count, unsigned home) {
    for (unsigned i = 0; home != 0 && i < count; i++) {
        if (!ptr_present(&pointer[i]))
            continue;
        if (ptr_store(&pointer[i]) + home > STORE_ENTRY_COUNT_MAX)
            return -E_CORRUPT;
        pointer[i].where += (uint64_t)home << 48;
    }
    return 0;
}

int header_valid(const struct header_disk *header) {
    uint8_t hash[ROOT_HASH_SIZE];
    blake2b(hash, sizeof hash, header, offsetof(struct header_disk, hash));
    if (header->magic != HEADER_MAGIC || memcmp(hash, header->hash, sizeof hash) != 0)
        return -E_FOREIGN;
    if (header->version == 0 || header->version > FORMAT_VERSION_MAX)
        return -E_VERSION;
    if (header->ring_count != RING_COUNT || header->ring_first != RING_FIRST_BLOCK || header->ring_stride == 0)
        return -E_CORRUPT;
    if (header->block_count < STORE_BLOCK_COUNT_MIN || header->block_count > UINT32_MAX)
        return -E_CORRUPT;
    if (header->ring_stride > (header->block_count - RING_FIRST_BLOCK) / RING_COUNT)
        return -E_CORRUPT;
    return 0;
}

int root_valid(const struct root_disk *root, const uint8_t *store_id) {
    uint8_t hash[ROOT_HASH_SIZE];
    if (root->magic != ROOT_MAGIC || memcmp(root->store_id, store_id, STORE_ID_SIZE) != 0)
        return -E_NOENT;
    blake2b(hash, sizeof hash, root, offsetof(struct root_disk, hash));
    if (memcmp(hash, root->hash, sizeof hash) != 0)
        return -E_CORRUPT;
    if (root->version == 0 || root->version > FORMAT_VERSION_MAX)
        return -E_VERSION;
    if (root->tree_height > DIRECTORY_HEIGHT_MAX || root->meta_height > DIRECTORY_HEIGHT_MAX)
        return -E_CORRUPT;
    if (root->free_count > root->block_count || root->generation >= (uint64_t)1 << 48 || root->retain_count == 0)
        return -E_CORRUPT;
    if (root->retain_hourly > RETAIN_HOURLY_MAX || root->retain_daily > RETAIN_DAILY_MAX)
        return -E_CORRUPT;
    return 0;
}

void root_seal(struct root_disk *root) {
    memset(root->signature, 0, sizeof root->signature);
    blake2b(root->hash, sizeof root->hash, root, offsetof(struct root_disk, hash));
}

void store_notice(const char *template, ...) {
    char text[160];
    va_list arguments;
    va_start(arguments, template);
    format_list(text, sizeof text, template, arguments);
    va_end(arguments);
    (store.env->notice)(text); /* the log has a macro of this name */
}
