/*
 * kernel/lib/zstd.c: decompresses pages (zstd, RFC 8878).
 *
 * Promise: any input is safe: it gives exactly `size` bytes or fails; no memory but a static work area, no other state.
 * The decoder is upstream's, which the build fetches: its portable C in this one unit, made small (a page is 4 KiB:
 * what is fast for megabytes only costs here), without a heap, without its checksums.
 * Called by: main.c for the store (pages of far stores); tests on the host. Not in two contexts at once.
 */
#include "lib/lib.h"

/* What zstd wants of a C library: see lib/common/zstd_deps.h there. */
#define ZSTD_DEPS_COMMON
#define ZSTD_memcpy(to, from, size) __builtin_memcpy((to), (from), (size))
#define ZSTD_memmove(to, from, size) __builtin_memmove((to), (from), (size))
#define ZSTD_memset(to, byte, size) __builtin_memset((to), (byte), (size))
#define ZSTD_DEPS_MALLOC
#define ZSTD_malloc(size) ((void)(size), NULL)
#define ZSTD_calloc(count, size) ((void)(count), (void)(size), NULL)
#define ZSTD_free(pointer) ((void)(pointer))

#define DEBUGLEVEL 0
#define DYNAMIC_BMI2 0
#define HUF_FORCE_DECOMPRESS_X1
#define XXH_INLINE_ALL
#define XXH_NAMESPACE ZSTD_
#define XXH_PRIVATE_API
#define ZSTD_DISABLE_ASM 1
#define ZSTD_FORCE_DECOMPRESS_SEQUENCES_SHORT
#define ZSTD_LEGACY_SUPPORT 0
#define ZSTD_NO_INLINE
#define ZSTD_NO_INTRINSICS
#define ZSTD_STATIC_LINKING_ONLY
#define ZSTD_STRIP_ERROR_STRINGS
#define ZSTD_TRACE 0

#include <limits.h>

#include <common/debug.c>
#include <common/entropy_common.c>
#include <common/error_private.c>
#include <common/fse_decompress.c>
#include <common/zstd_common.c>
#include <decompress/huf_decompress.c>
#include <decompress/zstd_ddict.c>
#include <decompress/zstd_decompress.c>
#include <decompress/zstd_decompress_block.c>

int zstd_unpack(void *to, size_t size, const void *from, size_t from_size) {
    static uint64_t work[(sizeof(ZSTD_DCtx) + sizeof(uint64_t) - 1) / sizeof(uint64_t)];
    ZSTD_DCtx *context = ZSTD_initStaticDCtx(work, sizeof work);
    return context != NULL && ZSTD_decompressDCtx(context, to, size, from, from_size) == size;
}
