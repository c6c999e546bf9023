/*
 * kernel/store/tag.c: which generations are kept although they are not among the newest: tagged ones, and the first of
 * an hour or a day.
 *
 * Promise: what is kept from now on is marked before retention looks, what is kept no longer after it (flag DROPPED):
 * so nothing is freed that the durable root still retains. When near is full, less is kept, by name only in the end.
 * Called by: commit.c, around retain.c.
 */
#include "store/internal.h"

#define HOUR_NS 3600000000000ull
#define DAY_NS (24 * HOUR_NS)

/* Not among the newest of the root that is being built. */
static int is_old(const struct generation_disk *record) {
    return record->generation + store.limit.newest <= commit_generation();
}

static int is_roomy(void) { return store.free_count >= store.header.block_count / ROOM_SHARE; }

/* The newest ones grow by the generation that is added, so that none has to come back. */
void tag_limits_set(void) {
    uint64_t durable = store.root.retain_count;
    int grows = commit_generation() > store.root.generation && is_roomy();
    store.limit = (struct retain_limits){durable + (uint64_t)grows, store.retention.hourly, store.retention.daily,
                                         AUTOMATIC_TAG_COUNT};
    if (store.limit.newest > store.retention.count)
        store.limit.newest = store.retention.count;
}

/* Near is full: half of the first kind that has any to spare goes. Tags that were given by name stay. */
int tag_limits_lower(const struct retain_survey *survey) {
    uint64_t least = RETAIN_COUNT_MIN;
    if (survey->newest > least)
        store.limit.newest = least + (survey->newest - least) / 2;
    else if (survey->hourly > 0)
        store.limit.hourly = survey->hourly / 2;
    else if (survey->daily > 0)
        store.limit.daily = survey->daily / 2;
    else if (survey->automatic > 0)
        store.limit.automatic = survey->automatic / 2;
    else
        return 0;
    store_notice("near is full: old generations are given up");
    return 1;
}

/* With so few left for want of room, an hour's or a day's first one would be given up next. */
static int is_short(void) {
    return store.root.retain_count <= RETAIN_COUNT_MIN && store.retention.count > RETAIN_COUNT_MIN && !is_roomy();
}

static int tag_given(void) {
    const struct store_commit *request = store.request;
    struct generation_disk *record;
    uint64_t index;
    if (request->tag_generation == 0)
        return 0;
    int status = retain_find(request->tag_generation, &index);
    if (status == 0)
        status = retain_record(index, 1, &record);
    if (status != 0)
        return status;
    record->flags &= ~(uint32_t)GENERATION_AUTOMATIC; /* by name now */
    tag_set(record, request->tag);
    return 0;
}

void tag_set(struct generation_disk *record, const char *tag) {
    record->flags = (record->flags & ~(uint32_t)GENERATION_DROPPED) | GENERATION_TAGGED;
    memset(record->tag, 0, sizeof record->tag);
    memcpy(record->tag, tag, strlen(tag));
}

/* Marks a record that leaves the newest ones when no older one stands for its hour or day. */
static int keep_first(uint64_t index, uint64_t last_hour, uint64_t last_day) {
    struct generation_disk *record;
    int status = retain_record(index, 0, &record);
    if (status != 0)
        return status;
    uint32_t flags = 0;
    if (store.retention.hourly != 0 && record->wall_ns / HOUR_NS != last_hour)
        flags |= GENERATION_HOURLY;
    if (store.retention.daily != 0 && record->wall_ns / DAY_NS != last_day)
        flags |= GENERATION_DAILY;
    if (flags == 0)
        return 0;
    status = retain_record(index, 1, &record);
    if (status == 0)
        record->flags |= flags;
    return status;
}

static int keep_all(uint64_t record_count) {
    struct generation_disk *record;
    uint64_t last_hour = UINT64_MAX, last_day = UINT64_MAX;
    for (uint64_t i = 0; i < record_count; i++) {
        int status = retain_record(i, 0, &record);
        if (status == 0 && !is_old(record))
            return 0;
        if (status == 0 && !(record->flags & (GENERATION_HOLDERS | GENERATION_DROPPED)))
            status = keep_first(i, last_hour, last_day);
        if (status == 0)
            status = retain_record(i, 0, &record);
        if (status != 0)
            return status;
        if (record->flags & GENERATION_HOURLY)
            last_hour = record->wall_ns / HOUR_NS;
        if (record->flags & GENERATION_DAILY)
            last_day = record->wall_ns / DAY_NS;
    }
    return 0;
}

int tag_keep(void) {
    uint64_t record_count;
    int status = retain_scan(&record_count);
    if (status == 0)
        status = tag_given();
    int keeps = store.retention.hourly != 0 || store.retention.daily != 0;
    return status == 0 && keeps && !is_short() ? keep_all(record_count) : status;
}

/* What a record loses: `newer` has how many newer ones of each kind are kept. */
struct newer {
    uint64_t hourly, daily, automatic;
};

static uint32_t flags_lost(const struct generation_disk *record, struct newer *newer) {
    const struct store_commit *request = store.request;
    uint32_t lost = 0;
    if (record->generation == request->untag_generation)
        lost |= GENERATION_TAGGED | GENERATION_AUTOMATIC;
    else if (record->flags & GENERATION_AUTOMATIC && newer->automatic++ >= store.limit.automatic)
        lost |= GENERATION_TAGGED | GENERATION_AUTOMATIC;
    if (record->flags & GENERATION_HOURLY && newer->hourly++ >= store.limit.hourly)
        lost |= GENERATION_HOURLY;
    if (record->flags & GENERATION_DAILY && newer->daily++ >= store.limit.daily)
        lost |= GENERATION_DAILY;
    return record->flags & lost;
}

static int let_go(uint64_t index, struct newer *newer) {
    struct generation_disk *record;
    int status = retain_record(index, 0, &record);
    if (status != 0)
        return status;
    struct newer counted = *newer;
    uint32_t flags = record->flags & ~flags_lost(record, &counted);
    if (!(flags & GENERATION_HOLDERS) && is_old(record))
        flags |= GENERATION_DROPPED;
    if (flags != record->flags)
        status = retain_record(index, 1, &record);
    if (status != 0)
        return status;
    if (record->flags & ~flags & GENERATION_TAGGED)
        memset(record->tag, 0, sizeof record->tag);
    record->flags = flags;
    *newer = counted;
    return 0;
}

int tag_let_go(void) {
    uint64_t record_count;
    struct newer newer = {.automatic = (store.request->flags & GENERATION_AUTOMATIC) != 0};
    int status = retain_scan(&record_count);
    while (status == 0 && record_count-- > 0)
        status = let_go(record_count, &newer);
    return status;
}
