/*
 * kernel/arch/x86_64/paging.c: the kernel's half of every address space.
 *
 * Promise: text RX, read-only data R, everything else RW and NX, in the image and in the direct map alike (no
 * writable alias of text); the page below the kernel stack is not there. Entries 256 to 511 of the top table are
 * complete after paging_init and never change, so that copies of them stay right. Intel SDM vol. 3 chapter 4.
 * Called by: main.c (paging_init), mm (copies of the kernel half), drivers (mmio_map).
 */
#include "arch/x86_64/cpu.h"
#include "lib/lib.h"

#define PTE_GLOBAL (1ull << 8)
#define PAGE_SIZE 4096ull
#define LARGE_SIZE (2ull << 20)
#define GIGABYTE (1ull << 30)
#define TABLE_FLAGS (PTE_PRESENT | PTE_WRITE)
#define RW_NX (PTE_PRESENT | PTE_WRITE | PTE_GLOBAL | PTE_NX)
#define R_NX (PTE_PRESENT | PTE_GLOBAL | PTE_NX)
#define R_X (PTE_PRESENT | PTE_GLOBAL)
#define MMIO_FLAGS (RW_NX | PTE_NO_CACHE | PTE_WRITE_THROUGH)

enum { ENTRY_COUNT = 512, TOP_LEVEL = 4, KERNEL_HALF_FIRST = 256 };
/* Devices: small mappings in the first 8 MiB by 4 KiB pages, others by 2 MiB pages up to 1 GiB; no allocation. */
enum { MMIO_TABLE_COUNT = 4 };

extern char kernel_text_start[], kernel_rodata_start[], kernel_data_start[], kernel_end[]; /* linker.ld */

static uint64_t root;
static uint64_t (*page_alloc)(void);
static int gigabyte_pages;

static uint64_t mmio_large_table[ENTRY_COUNT] __attribute__((aligned(4096)));
static uint64_t mmio_table[MMIO_TABLE_COUNT][ENTRY_COUNT] __attribute__((aligned(4096)));
static uint64_t mmio_page_next;                       /* in 4 KiB pages */
static uint64_t mmio_large_next = MMIO_TABLE_COUNT;   /* in 2 MiB pages */

uint64_t virt_to_phys(const void *address) {
    uint64_t virtual = (uint64_t)address;
    if (virtual >= KERNEL_BASE)
        return virtual - KERNEL_BASE;
    check(virtual >= DIRECT_MAP_BASE && virtual < MMIO_BASE);
    return virtual - DIRECT_MAP_BASE;
}

static uint64_t level_size(int level) { /* what one entry of a table of this level covers */
    return PAGE_SIZE << 9 * (level - 1);
}

static unsigned level_index(uint64_t virtual, int level) {
    return virtual >> (12 + 9 * (level - 1)) & (ENTRY_COUNT - 1);
}

/* Only while paging_init runs: tables are reached through the temporary identity map. */
static uint64_t *next_table(uint64_t *entry) {
    if (!(*entry & PTE_PRESENT))
        *entry = page_alloc() | TABLE_FLAGS;
    return (uint64_t *)(*entry & PTE_ADDRESS);
}

/* Below 4 GiB, where firmware ranges and device registers lie between RAM, one page of 1 GiB could mix memory types. */
static int leaf_fits(uint64_t virtual, uint64_t physical, uint64_t size, int level) {
    if (level == 3 && (!gigabyte_pages || physical < 4 * GIGABYTE))
        return 0;
    return level < TOP_LEVEL && size >= level_size(level) && (virtual | physical) % level_size(level) == 0;
}

static uint64_t map_one(uint64_t virtual, uint64_t physical, uint64_t size, uint64_t flags) {
    uint64_t *table = (uint64_t *)root;
    int level = TOP_LEVEL;
    for (; !leaf_fits(virtual, physical, size, level); level--)
        table = next_table(&table[level_index(virtual, level)]);
    uint64_t *entry = &table[level_index(virtual, level)];
    check(!(*entry & PTE_PRESENT));
    *entry = physical | flags | (level > 1 ? PTE_LARGE : 0);
    return level_size(level);
}

static void map(uint64_t virtual, uint64_t physical, uint64_t size, uint64_t flags) {
    check((virtual | physical | size) % PAGE_SIZE == 0);
    for (uint64_t done = 0; done < size;)
        done += map_one(virtual + done, physical + done, size - done, flags);
}

static void map_image(const char *start, const char *end, uint64_t flags) {
    map((uint64_t)start, virt_to_phys(start), (uint64_t)(end - start), flags);
}

static void map_direct(uint64_t start, uint64_t end, uint64_t flags) {
    map(DIRECT_MAP_BASE + start, start, end - start, flags);
}

static void map_mmio_tables(void) {
    uint64_t *top = (uint64_t *)root;
    uint64_t *table = next_table(&top[level_index(MMIO_BASE, 4)]);
    table[0] = virt_to_phys(mmio_large_table) | TABLE_FLAGS;
    for (unsigned i = 0; i < MMIO_TABLE_COUNT; i++)
        mmio_large_table[i] = virt_to_phys(mmio_table[i]) | TABLE_FLAGS;
}

void paging_init(uint64_t memory_end, uint64_t (*alloc_page)(void)) {
    cpu_nx_enable();
    page_alloc = alloc_page;
    gigabyte_pages = cpu_has_gigabyte_pages();
    root = alloc_page();
    memory_end = (memory_end + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
    check(memory_end <= MMIO_BASE - DIRECT_MAP_BASE);
    map_image(kernel_text_start, kernel_rodata_start, R_X);
    map_image(kernel_rodata_start, kernel_data_start, R_NX);
    map_image(kernel_data_start, kernel_stack_guard, RW_NX);
    map_image(kernel_stack_guard + PAGE_SIZE, kernel_end, RW_NX);
    map_direct(0, virt_to_phys(kernel_text_start), RW_NX);
    map_direct(virt_to_phys(kernel_text_start), virt_to_phys(kernel_data_start), R_NX);
    map_direct(virt_to_phys(kernel_data_start), memory_end, RW_NX);
    map_mmio_tables();
    paging_load(root);
    interrupt_map();
}

void paging_kernel_half_copy(uint64_t *pml4) {
    const uint64_t *kernel = phys_to_virt(root);
    memcpy(pml4 + KERNEL_HALF_FIRST, kernel + KERNEL_HALF_FIRST, (ENTRY_COUNT - KERNEL_HALF_FIRST) * sizeof *pml4);
}

uint64_t paging_kernel_root(void) {
    return root;
}

static void *mmio_map_small(uint64_t start, uint64_t page_count) {
    check(page_count <= MMIO_TABLE_COUNT * ENTRY_COUNT - mmio_page_next);
    uint64_t first = mmio_page_next;
    for (uint64_t i = 0; i < page_count; i++)
        mmio_table[0][mmio_page_next++] = (start + i * PAGE_SIZE) | MMIO_FLAGS; /* the tables are one array */
    return (void *)(MMIO_BASE + first * PAGE_SIZE);
}

static void *mmio_map_large(uint64_t start, uint64_t page_count) {
    check(page_count <= ENTRY_COUNT - mmio_large_next);
    uint64_t first = mmio_large_next;
    for (uint64_t i = 0; i < page_count; i++)
        mmio_large_table[mmio_large_next++] = (start + i * LARGE_SIZE) | MMIO_FLAGS | PTE_LARGE;
    return (void *)(MMIO_BASE + first * LARGE_SIZE);
}

/* Entries go from absent to present only, so nothing has to be flushed. */
void *mmio_map(uint64_t physical, size_t size) {
    uint64_t unit = size < LARGE_SIZE ? PAGE_SIZE : LARGE_SIZE;
    check(size && size <= GIGABYTE && physical <= PTE_ADDRESS - size);
    uint64_t start = physical & ~(unit - 1);
    uint64_t count = (physical - start + size + unit - 1) / unit;
    char *mapped = unit == PAGE_SIZE ? mmio_map_small(start, count) : mmio_map_large(start, count);
    return mapped + (physical - start);
}
