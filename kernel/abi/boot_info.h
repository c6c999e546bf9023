/*
 * kernel/abi/boot_info.h: what the loader hands to the kernel (boot/PROTOCOL.md).
 *
 * Promise: plain data below 1 MiB or inside the kernel, valid until the kernel has its own page tables.
 * Made by: boot/ (MBR path) or the PVH entry in kernel/arch. Read by: kernel/main.c, once.
 */
#ifndef ABI_BOOT_INFO_H
#define ABI_BOOT_INFO_H

#include <stddef.h>
#include <stdint.h>

#define BOOT_INFO_MAGIC 0x544f4f42544e5652ull /* "RVNTBOOT" */

enum { BOOT_INFO_VERSION = 1, BOOT_RANGE_COUNT_MAX = 64 };
enum boot_method { BOOT_BY_PVH = 1, BOOT_BY_MBR = 2 };
enum boot_range_type { BOOT_RANGE_RAM = 1 }; /* others as in E820; only RAM is used */

struct boot_range {
    uint64_t start;
    uint64_t size;
    uint32_t type;
    uint32_t zero;
};

struct boot_info {
    uint64_t magic;
    uint32_t version;
    uint32_t method;
    uint64_t entry_tsc;        /* RDTSC at the first instruction of ours that could read it */
    uint64_t root_sequence;    /* MBR: of the root record that the kernel came from; PVH: 0 */
    uint8_t store_id[16];      /* MBR: the store that the kernel came from; PVH: zero */
    uint32_t range_count;
    uint32_t zero;
    struct boot_range range[BOOT_RANGE_COUNT_MAX];
};

_Static_assert(sizeof(struct boot_range) == 24, "boot_range");
_Static_assert(offsetof(struct boot_info, entry_tsc) == 16, "boot_info.entry_tsc");
_Static_assert(offsetof(struct boot_info, store_id) == 32, "boot_info.store_id");
_Static_assert(offsetof(struct boot_info, range_count) == 48, "boot_info.range_count");
_Static_assert(offsetof(struct boot_info, range) == 56, "boot_info.range");

#endif
