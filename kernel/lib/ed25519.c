/*
 * kernel/lib/ed25519.c: checks Ed25519 signatures (RFC 8032).
 *
 * Promise: 1 for what the holder of the key has signed, 0 for anything else, whatever the bytes are. Arithmetic on the
 * curve is Monocypher's, which the build fetches; it refuses points off the curve and s beyond the order.
 * Called by: main.c for the store (root records of far stores); tests on the host. Not secret: time may vary.
 */
#include "lib/lib.h"

#include <monocypher.h>

enum { KEY_SIZE = 32, POINT_SIZE = 32 };

int ed25519_valid(const uint8_t key[32], const uint8_t signature[64], const void *message, size_t size) {
    uint8_t signed_part[POINT_SIZE + KEY_SIZE + ED25519_MESSAGE_SIZE_MAX], hash[64], reduced[32];
    if (size > ED25519_MESSAGE_SIZE_MAX)
        return 0;
    memcpy(signed_part, signature, POINT_SIZE);
    memcpy(signed_part + POINT_SIZE, key, KEY_SIZE);
    memcpy(signed_part + POINT_SIZE + KEY_SIZE, message, size);
    sha512(hash, signed_part, POINT_SIZE + KEY_SIZE + size);
    crypto_eddsa_reduce(reduced, hash);
    return crypto_eddsa_check_equation(signature, key, reduced) == 0;
}
