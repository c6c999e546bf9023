/*
 * kernel/store/trust.c: which roots of far stores are taken: the one with the pinned hash, those of the trusted key.
 *
 * Promise: nothing else is; an older signed root than the one that near has adopted is refused.
 * Called by: view.c, open.c, adopt.c, attach.c.
 */
#include "store/internal.h"

/* Whether the one whose key is trusted has signed a root. */
static int is_signed(const struct store_options *options, const struct root_disk *root) {
    static const uint8_t none[SIGNATURE_SIZE];
    return options->key_given && memcmp(root->signature, none, sizeof none) != 0 &&
           store.env->signature_valid != NULL &&
           store.env->signature_valid(options->key, root->signature, root->hash, ROOT_HASH_SIZE);
}

int trust_has(const struct store_options *options, const struct root_disk *root) {
    return (options->trust_given && memcmp(root->hash, options->trust, ROOT_HASH_SIZE) == 0) ||
           is_signed(options, root);
}

const char *trust_reason(const struct store_options *options) {
    if (!options->key_given)
        return "its root does not have the trusted hash";
    return options->trust_given ? "its root has neither the trusted hash nor a signature of the trusted key"
                                : "its root is not signed by the trusted key";
}

/* Whether a far store that has other roots than near knows is asked, where the key is what is trusted; says why not. */
int trust_may_follow(const struct store_options *options, unsigned disk, const struct store_entry_disk *entry,
                    const struct root_disk *root, unsigned count) {
    const char *reason = trust_reason(options);
    for (unsigned i = 0; i < count; i++) {
        if (!trust_has(options, &root[i]))
            continue;
        if (root[i].generation >= entry->generation)
            return 1;
        reason = "its signed root is older than the one that was adopted";
        break;
    }
    store_notice("far%u: %s: refused", disk, reason);
    return 0;
}
