/*
 * kernel/lib/page.c: questions about a page's contents.
 *
 * Promise: reads only; stops at the first word that decides.
 * Called by: store and pager, in any context; also on the host.
 */
#include "lib/lib.h"

enum { PAGE_WORD_COUNT = 512 };

int page_is_zero(const void *page) {
    const uint64_t *word = page;
    for (size_t i = 0; i < PAGE_WORD_COUNT; i += 8)
        if (word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] | word[i + 5] | word[i + 6] | word[i + 7])
            return 0;
    return 1;
}
