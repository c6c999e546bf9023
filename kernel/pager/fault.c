/*
 * kernel/pager/fault.c: page faults of programs, and the same work done ahead for system calls.
 *
 * Promise: PAGER_DONE only when the access will succeed; PAGER_BAD has no effect. The way in is one: absent pages come
 * from the tree through pagein.c, wherever their blocks are.
 * Called by: proc. Context: kernel, interrupts off.
 */
#include "lib/error.h"
#include "lib/lib.h"
#include "pager/internal.h"

enum { DISCARD_PAGE_COUNT = 256 }; /* in one piece: interrupts are off */

static uint64_t entry_flags(const struct region_record *region) {
    return PTE_PRESENT | PTE_USER | (region->access & REGION_EXEC ? 0 : PTE_NX) |
           (region->access & REGION_WRITE ? PTE_REGION_WRITE : 0);
}

void page_map(struct space *space, uint64_t address, uint64_t *entry, struct frame *frame) {
    const struct region_record *region = space_region(space, address);
    check(region != NULL);
    *entry = frame_physical(frame) | entry_flags(region);
    if (frame == pager.zero_frame)
        return;
    frame->space = space->id;
    frame->page = address >> FRAME_SHIFT;
    frame->entry = entry;
    frame->resident_count = &space->resident_count;
    list_append(&pager.clean, &frame->link);
    pager.resident_count++;
    space->resident_count++;
}

void pager_note_touch(uint64_t space, uint64_t page) {
    if (pager.options.record)
        notice("touched %llu:%llu", (unsigned long long)space, (unsigned long long)page);
}

/* The tree's pointer of a page. PAGER_WAIT: *key is woken when it is worth asking again. */
static enum pager_result page_lookup(struct space *space, uint64_t address, struct block_ptr_disk *pointer,
                                     const void **key) {
    int status = store_lookup((struct page_key){space->id, address >> FRAME_SHIFT}, pointer, key);
    if (status == -E_NOMEM && page_memory_make())
        status = store_lookup((struct page_key){space->id, address >> FRAME_SHIFT}, pointer, key);
    if (status == 0) {
        pager_note_touch(space->id, address >> FRAME_SHIFT);
        return PAGER_DONE;
    }
    if (status == -E_NOMEM)
        page_memory_wait(key);
    else if (status != -E_AGAIN)
        pagein_wait_for_node(space, address, status, key);
    return PAGER_WAIT;
}

/* Maps an absent page: the zero frame at once, anything else after it was loaded. */
static enum pager_result page_load(struct space *space, uint64_t address, uint64_t *entry, const void **key) {
    *key = pagein_key(space, address);
    if (*key != NULL)
        return PAGER_WAIT;
    struct block_ptr_disk pointer;
    if (page_lookup(space, address, &pointer, key) != PAGER_DONE)
        return PAGER_WAIT;
    if (ptr_present(&pointer))
        return pagein_start(space, address, &pointer, key);
    page_map(space, address, entry, pager.zero_frame);
    return PAGER_DONE;
}

/* The entry of an address with its tables, or NULL: wait for memory. */
static uint64_t *entry_make(struct space *space, uint64_t address, const void **key) {
    uint64_t *entry = space_entry(space, address, 1);
    if (entry == NULL && page_memory_make())
        entry = space_entry(space, address, 1);
    if (entry == NULL)
        page_memory_wait(key);
    return entry;
}

static enum pager_result page_make_present(struct space *space, uint64_t address, uint64_t **entry, const void **key) {
    *entry = entry_make(space, address, key);
    if (*entry == NULL)
        return PAGER_WAIT;
    return **entry & PTE_PRESENT ? PAGER_DONE : page_load(space, address, *entry, key);
}

static enum pager_result page_resolve(struct space *space, uint64_t address, int write, const void **key) {
    uint64_t *entry;
    enum pager_result result = page_make_present(space, address, &entry, key);
    if (result == PAGER_DONE && write)
        result = page_make_writable(space, address, entry, key);
    else if (result == PAGER_DONE)
        *entry |= PTE_ACCESSED;
    return result;
}

/* The most frequent fault: a first write to a mapped page. */
static enum pager_result fault_first_write(uint64_t address, const void **key) {
    if (throttle(pager.current, key))
        return PAGER_WAIT;
    uint64_t start = arch_cycles();
    uint64_t *entry = space_hot_entry(pager.current, address);
    if (entry == NULL)
        entry = space_entry(pager.current, address, 0);
    if (entry == NULL || (*entry & (PTE_PRESENT | PTE_REGION_WRITE)) != (PTE_PRESENT | PTE_REGION_WRITE))
        return PAGER_BAD;
    enum pager_result result = page_make_writable(pager.current, address, entry, key);
    uint64_t cycles = arch_cycles() - start;
    pager.write_fault_cycles += cycles;
    pager.write_fault_count++;
    if (cycles > pager.write_fault_cycles_max)
        pager.write_fault_cycles_max = cycles;
    return result;
}

enum pager_result pager_fault(uint64_t address, uint64_t error_code, const void **key) {
    pager.fault_count++;
    if (address >= USER_END || error_code & FAULT_RESERVED)
        return PAGER_BAD;
    if (!(error_code & FAULT_USER)) /* what the CPU itself touched for an instruction of ring 3: QEMU's IRETQ does */
        return PAGER_BAD;
    if ((error_code & (FAULT_PRESENT | FAULT_WRITE)) == (FAULT_PRESENT | FAULT_WRITE))
        return fault_first_write(address, key);
    const struct region_record *region = space_region(pager.current, address);
    uint32_t access = error_code & FAULT_FETCH ? REGION_EXEC : error_code & FAULT_WRITE ? REGION_WRITE : REGION_READ;
    if (region == NULL || !(region->access & access))
        return PAGER_BAD;
    if (access == REGION_WRITE && throttle(pager.current, key))
        return PAGER_WAIT;
    enum pager_result result = page_resolve(pager.current, address, access == REGION_WRITE, key);
    paging_invalidate(address);
    return result;
}

/* Whether [address, address + size) lies in regions with this access. */
static int range_is_allowed(uint64_t address, size_t size, uint32_t access) {
    if (size == 0)
        return 1;
    if (address + size < address || address + size > USER_END)
        return 0;
    for (uint64_t at = address; at < address + size;) {
        const struct region_record *region = space_region(pager.current, at);
        if (region == NULL || (region->access & access) != access)
            return 0;
        at = region->end;
    }
    return 1;
}

static void prepared_add(uint64_t address, size_t size) {
    pager.prepared_start = address >> FRAME_SHIFT;
    pager.prepared_end = (address + size + FRAME_SIZE - 1) >> FRAME_SHIFT;
}

enum pager_result pager_user_prepare(uint64_t address, size_t size, int write, const void **key) {
    if (!range_is_allowed(address, size, write ? REGION_WRITE : REGION_READ))
        return PAGER_BAD;
    if (write && size > 0 && throttle(pager.current, key))
        return PAGER_WAIT;
    prepared_add(address, size);
    for (uint64_t at = address & ~(uint64_t)(FRAME_SIZE - 1); size > 0 && at < address + size; at += FRAME_SIZE) {
        enum pager_result result = page_resolve(pager.current, at, write, key);
        if (result != PAGER_DONE)
            return result;
    }
    return PAGER_DONE;
}

/* What the tree has and RAM has not gets a dirty page of zeros; where the tree has nothing, nothing is needed, not
 * even tables. */
static enum pager_result page_discard_absent(struct space *space, uint64_t address, const void **key) {
    struct block_ptr_disk pointer;
    *key = pagein_key(space, address); /* else it would arrive later, and be mapped when the zeros have been evicted */
    if (*key != NULL || page_lookup(space, address, &pointer, key) != PAGER_DONE)
        return PAGER_WAIT;
    if (!ptr_present(&pointer))
        return PAGER_DONE;
    uint64_t *entry = entry_make(space, address, key);
    struct frame *frame = entry != NULL ? page_frame_alloc(key) : NULL;
    if (frame == NULL)
        return PAGER_WAIT;
    memset(frame_data(frame), 0, FRAME_SIZE);
    page_map(space, address, entry, frame);
    page_mark_dirty(frame);
    throttle_count(space);
    return PAGER_DONE;
}

static enum pager_result page_discard(struct space *space, uint64_t address, const void **key) {
    uint64_t *entry = space_entry(space, address, 0);
    if (entry == NULL || !(*entry & PTE_PRESENT))
        return page_discard_absent(space, address, key);
    if ((*entry & PTE_ADDRESS) == frame_physical(pager.zero_frame))
        return PAGER_DONE;
    if (page_own(space, address, entry, key) != PAGER_DONE)
        return PAGER_WAIT;
    memset(phys_to_virt(*entry & PTE_ADDRESS), 0, FRAME_SIZE);
    return PAGER_DONE;
}

enum pager_result pager_user_discard(uint64_t address, size_t size, uint64_t *done_size, const void **key) {
    if ((address | size) & (FRAME_SIZE - 1) || !range_is_allowed(address, size, REGION_WRITE))
        return PAGER_BAD;
    for (unsigned budget = DISCARD_PAGE_COUNT; *done_size < size; *done_size += FRAME_SIZE) {
        if (budget-- == 0)
            return PAGER_MORE;
        if (throttle(pager.current, key))
            return PAGER_WAIT;
        if (page_discard(pager.current, address + *done_size, key) != PAGER_DONE)
            return PAGER_WAIT;
    }
    return PAGER_DONE;
}

enum pager_result pager_user_exec_write(uint64_t address, const void *from, size_t size, const void **key) {
    if (size == 0)
        return PAGER_DONE; /* wherever it is: there may be no region */
    if (!range_is_allowed(address, size, REGION_EXEC))
        return PAGER_BAD;
    if (throttle(pager.current, key)) /* once, at the start: all pages of it become dirty in one epoch */
        return PAGER_WAIT;
    uint64_t end = address + size;
    uint64_t *entry;
    for (uint64_t at = address & ~(uint64_t)(FRAME_SIZE - 1); at < end; at += FRAME_SIZE) {
        if (page_make_present(pager.current, at, &entry, key) != PAGER_DONE ||
            page_own(pager.current, at, entry, key) != PAGER_DONE)
            return PAGER_WAIT;
    }
    arch_user_access_begin();
    for (uint64_t at = address; at < end;) { /* all are here and dirty: nothing can fail from now on */
        uint64_t offset = at & (FRAME_SIZE - 1);
        size_t part = FRAME_SIZE - offset < end - at ? FRAME_SIZE - offset : end - at;
        entry = space_entry(pager.current, at, 0);
        memcpy((char *)phys_to_virt(*entry & PTE_ADDRESS) + offset, from, part);
        from = (const char *)from + part;
        at += part;
    }
    arch_user_access_end();
    return PAGER_DONE;
}
