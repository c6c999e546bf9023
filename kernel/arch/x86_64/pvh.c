/*
 * kernel/arch/x86_64/pvh.c: makes a boot_info of what QEMU's PVH start hands over.
 *
 * Promise: the same structure as the MBR loader makes; ranges beyond BOOT_RANGE_COUNT_MAX are dropped (RAM that is
 * not used).
 * Called by: boot.asm, once, before kernel_main, on the temporary identity map.
 * Source: Xen's public/arch-x86/hvm/start_info.h.
 */
#include "lib/lib.h"
#include "arch/x86_64/cpu.h"

enum { HVM_START_MAGIC = 0x336ec578, HVM_VERSION_MEMMAP = 1 };

struct hvm_start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t module_count;
    uint64_t modules;
    uint64_t command_line;
    uint64_t rsdp;
    uint64_t memory_map; /* physical address of hvm_memory_range[] */
    uint32_t memory_map_count;
    uint32_t zero;
};
_Static_assert(offsetof(struct hvm_start_info, memory_map_count) == 48, "hvm_start_info");

struct hvm_memory_range {
    uint64_t start;
    uint64_t size;
    uint32_t type;
    uint32_t zero;
};

const struct boot_info *pvh_boot_info(uint64_t start_info, uint64_t entry_tsc) {
    static struct boot_info info;
    const struct hvm_start_info *start = (const struct hvm_start_info *)start_info;
    info = (struct boot_info){
        .magic = BOOT_INFO_MAGIC, .version = BOOT_INFO_VERSION, .method = BOOT_BY_PVH, .entry_tsc = entry_tsc};
    if (start->magic != HVM_START_MAGIC || start->version < HVM_VERSION_MEMMAP)
        return &info; /* no RAM: kernel_main says so */
    const struct hvm_memory_range *range = (const struct hvm_memory_range *)start->memory_map;
    for (uint32_t i = 0; i < start->memory_map_count && i < BOOT_RANGE_COUNT_MAX; i++)
        info.range[info.range_count++] =
            (struct boot_range){.start = range[i].start, .size = range[i].size, .type = range[i].type};
    return &info;
}
