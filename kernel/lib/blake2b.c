/*
 * kernel/lib/blake2b.c: BLAKE2b (RFC 7693), unkeyed.
 *
 * Promise: the hash of hashlib.blake2b(data, digest_size=hash_size). Written for few accesses to memory: rounds are
 * unrolled with a constant message schedule; about 52,000 instructions a page.
 * Called by: store (every block that is read or written), tools' tests on the host. No state. x86-64 only.
 */
#include "lib/lib.h"

enum { BLOCK_SIZE = 128, HASH_SIZE_MAX = 64 };

/* The caller's data: may alias anything and be unaligned. */
typedef uint64_t __attribute__((may_alias, aligned(1))) message_word;

static const uint64_t initial[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

#define ROTATE(x, n) ((x) >> (n) | (x) << (64 - (n)))

/*
 * Sixteen words of state do not fit the registers; left alone, the compiler spills most of them (1830 instructions a
 * block). Of G's four words, c is the one that is only added to and read: kept in memory between its uses, with the
 * message, it leaves room for the rest. Added to in memory it would take fewer instructions (1425 for 1620), but half
 * as long again under TCG, where each access to memory costs as much as four other instructions.
 */
#define LOAD(to, memory) __asm__("movq %1, %0" : "=r"(to) : "m"(memory))
#define STORE(memory, from) __asm__("movq %1, %0" : "=m"(memory) : "r"(from))
#define ADD_FROM_MEMORY(sum, x) __asm__("addq %1, %0" : "+r"(sum) : "m"(x) : "cc")

#define G(a, b, c, d, x, y) \
    do { \
        uint64_t sum; \
        ADD_FROM_MEMORY(a, m[x]); \
        a += b; \
        d = ROTATE(d ^ a, 32); \
        LOAD(sum, c); \
        sum += d; \
        b = ROTATE(b ^ sum, 24); \
        ADD_FROM_MEMORY(a, m[y]); \
        a += b; \
        d = ROTATE(d ^ a, 16); \
        sum += d; \
        STORE(c, sum); \
        b = ROTATE(b ^ sum, 63); \
    } while (0)

#define ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb, sc, sd, se, sf) \
    G(v0, v4, v8, vc, s0, s1); \
    G(v1, v5, v9, vd, s2, s3); \
    G(v2, v6, va, ve, s4, s5); \
    G(v3, v7, vb, vf, s6, s7); \
    G(v0, v5, va, vf, s8, s9); \
    G(v1, v6, vb, vc, sa, sb); \
    G(v2, v7, v8, vd, sc, sd); \
    G(v3, v4, v9, ve, se, sf)

/* h: the chain; m: one block; offset: bytes up to this block's end; last: all ones for the last block, else 0 */
static void compress(uint64_t *h, const message_word *m, uint64_t offset, uint64_t last) {
    uint64_t v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3], v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
    uint64_t v8 = initial[0], v9 = initial[1], va = initial[2], vb = initial[3];
    uint64_t vc = initial[4] ^ offset, vd = initial[5], ve = initial[6] ^ last, vf = initial[7];
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
    ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
    ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
    ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
    ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
    ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
    ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
    ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    h[0] ^= v0 ^ v8, h[1] ^= v1 ^ v9, h[2] ^= v2 ^ va, h[3] ^= v3 ^ vb;
    h[4] ^= v4 ^ vc, h[5] ^= v5 ^ vd, h[6] ^= v6 ^ ve, h[7] ^= v7 ^ vf;
}

void blake2b(uint8_t *hash, size_t hash_size, const void *data, size_t size) {
    check(hash_size >= 1 && hash_size <= HASH_SIZE_MAX);
    uint64_t h[8];
    memcpy(h, initial, sizeof h);
    h[0] ^= 0x01010000 ^ hash_size; /* parameter block: fan-out 1, depth 1, no key */
    const uint8_t *at = data;
    uint64_t offset = 0;
    for (; size - offset > BLOCK_SIZE; at += BLOCK_SIZE) { /* the last block, full or not, is left */
        offset += BLOCK_SIZE;
        compress(h, (const message_word *)at, offset, 0);
    }
    uint64_t rest = size - offset;
    if (rest == BLOCK_SIZE) {
        compress(h, (const message_word *)at, size, UINT64_MAX);
    } else {
        uint64_t padded[BLOCK_SIZE / 8] = {0};
        memcpy(padded, at, rest);
        compress(h, padded, size, UINT64_MAX);
    }
    memcpy(hash, h, hash_size);
}
