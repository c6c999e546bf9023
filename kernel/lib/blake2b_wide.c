/*
 * kernel/lib/blake2b_wide.c: the BLAKE2b-128 hashes of four pages at once, one in each lane of 256-bit vectors.
 *
 * Promise: the same hashes as blake2b, for about 19,000 instructions a page instead of 52,000. Needs AVX2; keeps no
 * state.
 * Called by: main.c's hash_pages, between arch_vector_begin and arch_vector_end.
 */
#include "lib/blake2b.h"
#include "lib/lib.h"

enum { PAGE_SIZE = 4096, WORD_COUNT = BLOCK_SIZE / 8, LANE_COUNT = 4, HASH_SIZE = 16 };

typedef uint64_t lanes __attribute__((vector_size(32)));
typedef uint64_t __attribute__((vector_size(32), may_alias)) page_words;

/*
 * Rotations are by shifts, also where a shuffle would do: under TCG a shuffle is a call that goes over the bytes, a
 * shift is one instruction of the host (42 us a page; with shuffles of bytes 118, more than one after the other).
 */
#define G(a, b, c, d, x, y) \
    do { \
        a += m[x]; \
        a += b; \
        d = ROTATE(d ^ a, 32); \
        c += d; \
        b = ROTATE(b ^ c, 24); \
        a += m[y]; \
        a += b; \
        d = ROTATE(d ^ a, 16); \
        c += d; \
        b = ROTATE(b ^ c, 63); \
    } while (0)

#define EVERY(word) ((lanes){(word), (word), (word), (word)})

static void compress(lanes *h, const lanes *m, uint64_t offset, uint64_t last) {
    lanes v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3], v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
    lanes v8 = EVERY(initial[0]), v9 = EVERY(initial[1]), va = EVERY(initial[2]), vb = EVERY(initial[3]);
    lanes vc = EVERY(initial[4] ^ offset), vd = EVERY(initial[5]);
    lanes ve = EVERY(initial[6] ^ last), vf = EVERY(initial[7]);
    ROUNDS;
    h[0] ^= v0 ^ v8, h[1] ^= v1 ^ v9, h[2] ^= v2 ^ va, h[3] ^= v3 ^ vb;
    h[4] ^= v4 ^ vc, h[5] ^= v5 ^ vd, h[6] ^= v6 ^ ve, h[7] ^= v7 ^ vf;
}

/* m[w] gets word w of the block at `offset` of each page: four transpositions of 4 by 4 words. */
static void gather(lanes *m, const void *const page[LANE_COUNT], size_t offset) {
    typedef int64_t index __attribute__((vector_size(32)));
    static const index low = {0, 4, 2, 6}, high = {1, 5, 3, 7}, front = {0, 1, 4, 5}, back = {2, 3, 6, 7};
    for (unsigned w = 0; w < WORD_COUNT; w += 4) {
        lanes a = *(const page_words *)((const char *)page[0] + offset + w * 8);
        lanes b = *(const page_words *)((const char *)page[1] + offset + w * 8);
        lanes c = *(const page_words *)((const char *)page[2] + offset + w * 8);
        lanes d = *(const page_words *)((const char *)page[3] + offset + w * 8);
        lanes ab_low = __builtin_shuffle(a, b, low), ab_high = __builtin_shuffle(a, b, high);
        lanes cd_low = __builtin_shuffle(c, d, low), cd_high = __builtin_shuffle(c, d, high);
        m[w] = __builtin_shuffle(ab_low, cd_low, front);
        m[w + 1] = __builtin_shuffle(ab_high, cd_high, front);
        m[w + 2] = __builtin_shuffle(ab_low, cd_low, back);
        m[w + 3] = __builtin_shuffle(ab_high, cd_high, back);
    }
}

void blake2b_pages(uint8_t *const hash[LANE_COUNT], const void *const page[LANE_COUNT]) {
    lanes h[8], m[WORD_COUNT];
    for (unsigned i = 0; i < 8; i++)
        h[i] = EVERY(initial[i]);
    h[0] ^= PARAMETERS(HASH_SIZE);
    for (size_t offset = 0; offset < PAGE_SIZE; offset += BLOCK_SIZE) {
        gather(m, page, offset);
        compress(h, m, offset + BLOCK_SIZE, offset + BLOCK_SIZE == PAGE_SIZE ? UINT64_MAX : 0);
    }
    for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
        uint64_t words[2] = {h[0][lane], h[1][lane]};
        memcpy(hash[lane], words, HASH_SIZE);
    }
}
