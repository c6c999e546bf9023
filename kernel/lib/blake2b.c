/*
 * kernel/lib/blake2b.c: BLAKE2b (RFC 7693), unkeyed.
 *
 * Promise: the hash of hashlib.blake2b(data, digest_size=hash_size). Written for few accesses to memory: rounds are
 * unrolled with a constant message schedule; about 52,000 instructions a page.
 * Called by: store (headers and roots; blocks, too, where there are no vector registers), tools' tests on the host.
 * No state. x86-64 only.
 */
#include "lib/blake2b.h"
#include "lib/lib.h"

enum { HASH_SIZE_MAX = 64 };

/* The caller's data: may alias anything and be unaligned. */
typedef uint64_t __attribute__((may_alias, aligned(1))) message_word;


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

/* h: the chain; m: one block; offset: bytes up to this block's end; last: all ones for the last block, else 0 */
static void compress(uint64_t *h, const message_word *m, uint64_t offset, uint64_t last) {
    uint64_t v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3], v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
    uint64_t v8 = initial[0], v9 = initial[1], va = initial[2], vb = initial[3];
    uint64_t vc = initial[4] ^ offset, vd = initial[5], ve = initial[6] ^ last, vf = initial[7];
    ROUNDS;
    h[0] ^= v0 ^ v8, h[1] ^= v1 ^ v9, h[2] ^= v2 ^ va, h[3] ^= v3 ^ vb;
    h[4] ^= v4 ^ vc, h[5] ^= v5 ^ vd, h[6] ^= v6 ^ ve, h[7] ^= v7 ^ vf;
}

void blake2b(uint8_t *hash, size_t hash_size, const void *data, size_t size) {
    check(hash_size >= 1 && hash_size <= HASH_SIZE_MAX);
    uint64_t h[8];
    memcpy(h, initial, sizeof h);
    h[0] ^= PARAMETERS(hash_size);
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
