/*
 * kernel/lib/blake2b_page.c: the BLAKE2b-128 hash of one page, without access to memory but for the page itself.
 *
 * Promise: the same hash as blake2b, for 64,000 instructions, but under TCG in a fourth to a fifth of the time (10 us):
 * there each access to memory is a dozen instructions of the host, and what might fault has the flags computed before
 * it. So the message lies in vector registers, and rotations are those that leave the flags alone. Needs AVX and BMI2.
 * Called by: main.c's hash_page, between arch_vector_begin and arch_vector_end. No state.
 */
#include "lib/blake2b.h"
#include "lib/lib.h"

enum { PAGE_SIZE = 4096, HASH_SIZE = 16 };

typedef uint64_t pair __attribute__((vector_size(16)));
typedef uint64_t __attribute__((vector_size(16), may_alias)) message_pair;

/* Volatile, or the compiler takes each word out once, and keeps it in memory. */
#define LOW(word, pair) __asm__ volatile("vmovq %1, %0" : "=r"(word) : "x"(pair))
#define HIGH(word, pair) __asm__ volatile("vpextrq $1, %1, %0" : "=r"(word) : "x"(pair))
#define PUT(pair, word) __asm__ volatile("vmovq %1, %0" : "=x"(pair) : "r"(word))

/* Of G's four words, c is the one that is only added to and read: it lies in a vector register, too. */
#define G(a, b, c, d, x, y) \
    do { \
        uint64_t word; \
        TAKE_##x(word); \
        a += word; \
        a += b; \
        d = ROTATE(d ^ a, 32); \
        LOW(word, c); \
        word += d; \
        b = ROTATE(b ^ word, 24); \
        PUT(c, word); \
        TAKE_##y(word); \
        a += word; \
        a += b; \
        d = ROTATE(d ^ a, 16); \
        LOW(word, c); \
        word += d; \
        PUT(c, word); \
        b = ROTATE(b ^ word, 63); \
    } while (0)

#define TAKE_0(word) LOW(word, m0)
#define TAKE_1(word) HIGH(word, m0)
#define TAKE_2(word) LOW(word, m1)
#define TAKE_3(word) HIGH(word, m1)
#define TAKE_4(word) LOW(word, m2)
#define TAKE_5(word) HIGH(word, m2)
#define TAKE_6(word) LOW(word, m3)
#define TAKE_7(word) HIGH(word, m3)
#define TAKE_8(word) LOW(word, m4)
#define TAKE_9(word) HIGH(word, m4)
#define TAKE_10(word) LOW(word, m5)
#define TAKE_11(word) HIGH(word, m5)
#define TAKE_12(word) LOW(word, m6)
#define TAKE_13(word) HIGH(word, m6)
#define TAKE_14(word) LOW(word, m7)
#define TAKE_15(word) HIGH(word, m7)

/* h: the chain; m: one block; offset: bytes up to this block's end; last: all ones for the last block, else 0 */
static void compress(uint64_t *h, const message_pair *m, uint64_t offset, uint64_t last) {
    uint64_t v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3], v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
    pair v8 = {initial[0]}, v9 = {initial[1]}, va = {initial[2]}, vb = {initial[3]};
    uint64_t vc = initial[4] ^ offset, vd = initial[5], ve = initial[6] ^ last, vf = initial[7];
    pair m0 = m[0], m1 = m[1], m2 = m[2], m3 = m[3], m4 = m[4], m5 = m[5], m6 = m[6], m7 = m[7];
    __asm__("" : "+x"(m0), "+x"(m1), "+x"(m2), "+x"(m3), "+x"(m4), "+x"(m5), "+x"(m6), "+x"(m7));
    ROUNDS;
    h[0] ^= v0 ^ v8[0], h[1] ^= v1 ^ v9[0], h[2] ^= v2 ^ va[0], h[3] ^= v3 ^ vb[0];
    h[4] ^= v4 ^ vc, h[5] ^= v5 ^ vd, h[6] ^= v6 ^ ve, h[7] ^= v7 ^ vf;
}

void blake2b_page(uint8_t *hash, const void *page) {
    uint64_t h[8];
    memcpy(h, initial, sizeof h);
    h[0] ^= PARAMETERS(HASH_SIZE);
    for (size_t offset = 0; offset < PAGE_SIZE; offset += BLOCK_SIZE)
        compress(h, (const message_pair *)((const char *)page + offset), offset + BLOCK_SIZE,
                 offset + BLOCK_SIZE == PAGE_SIZE ? UINT64_MAX : 0);
    memcpy(hash, h, HASH_SIZE);
}
