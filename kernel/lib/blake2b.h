/*
 * kernel/lib/blake2b.h: what the ways to compute BLAKE2b share: its constants, and which words each round mixes.
 *
 * Promise: a file that defines G(a, b, c, d, x, y), of message words number x and y, and has the state in v0 to vf, has
 * all twelve rounds by ROUNDS. Included by: blake2b.c, blake2b_page.c, blake2b_wide.c. Source: RFC 7693 §2, §3.
 */
#ifndef LIB_BLAKE2B_H
#define LIB_BLAKE2B_H

#include <stdint.h>

enum { BLOCK_SIZE = 128 };

static const uint64_t initial[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

/* Of a parameter block: fan-out 1, depth 1, no key. */
#define PARAMETERS(hash_size) (0x01010000 ^ (hash_size))

#define ROTATE(x, n) ((x) >> (n) | (x) << (64 - (n)))

#define ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb, sc, sd, se, sf) \
    G(v0, v4, v8, vc, s0, s1); \
    G(v1, v5, v9, vd, s2, s3); \
    G(v2, v6, va, ve, s4, s5); \
    G(v3, v7, vb, vf, s6, s7); \
    G(v0, v5, va, vf, s8, s9); \
    G(v1, v6, vb, vc, sa, sb); \
    G(v2, v7, v8, vd, sc, sd); \
    G(v3, v4, v9, ve, se, sf)

#define ROUNDS \
    do { \
        ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); \
        ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3); \
        ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4); \
        ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8); \
        ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13); \
        ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9); \
        ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11); \
        ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10); \
        ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5); \
        ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0); \
        ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); \
        ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3); \
    } while (0)

#endif
