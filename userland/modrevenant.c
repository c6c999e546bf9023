/*
 * userland/modrevenant.c: the Python module `revenant`: what is new when programs do not die.
 *
 * Promise: on_resume callbacks run once for every start of the machine, as soon as the VM next looks (a wait ends for
 * them), never inside each other; `random` is reseeded before them. An exception in one is printed and stops no other.
 * Called by: Python programs; console.c when WAIT_RESUMED holds.
 */
#include "py/gc.h"
#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/objlist.h"
#include "py/runtime.h"

#include "modrevenant.h"
#include "syscall.h"

static mp_obj_t checked(long result) {
    if (result < 0) {
        mp_raise_msg_varg(&mp_type_OSError, MP_ERROR_TEXT("system call failed: %d"), (int)result);
    }
    return mp_obj_new_int_from_ull((unsigned long long)result);
}

static mp_obj_t revenant_generation(void) {
    return checked(sys_generation());
}
static MP_DEFINE_CONST_FUN_OBJ_0(revenant_generation_obj, revenant_generation);

/* In seconds since 1970, as time.time() tells them, or parts of one; never early, not even by a rounded nanosecond. */
static uint64_t wall_ns_of(double seconds) {
    const double seconds_max = (double)(UINT64_MAX / 1000000000 - 1);
    if (!(seconds > 0)) { /* long ago; nan is no time at all */
        return 0;
    }
    if (seconds >= seconds_max) {
        return WAIT_FOREVER;
    }
    uint64_t whole = (uint64_t)seconds;
    double rest_ns = (seconds - (double)whole) * 1e9;
    return whole * 1000000000 + (uint64_t)rest_ns + (rest_ns > (double)(uint64_t)rest_ns);
}

static mp_obj_t revenant_sleep_until(mp_obj_t wall_clock) {
    port_sleep_until_wall(wall_ns_of(mp_obj_get_float(wall_clock)));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(revenant_sleep_until_obj, revenant_sleep_until);

static mp_obj_t revenant_commit(void) {
    port_console_flush();
    return checked(sys_commit());
}
static MP_DEFINE_CONST_FUN_OBJ_0(revenant_commit_obj, revenant_commit);

static mp_obj_t revenant_tag(mp_obj_t name_in) {
    size_t size;
    const char *name = mp_obj_str_get_data(name_in, &size);
    if (size == 0) {
        mp_raise_ValueError(MP_ERROR_TEXT("a tag needs a name"));
    }
    port_console_flush();
    long result = sys_tag(name, size);
    if (result == ERR_INVAL) {
        mp_raise_ValueError(MP_ERROR_TEXT("a tag has up to 47 bytes, and not only digits"));
    }
    if (result == ERR_EXISTS) {
        mp_raise_OSError(MP_EEXIST);
    }
    return checked(result);
}
static MP_DEFINE_CONST_FUN_OBJ_1(revenant_tag_obj, revenant_tag);

static const qstr history_fields[] = {
    MP_QSTR_generation, MP_QSTR_tag, MP_QSTR_wall_ns, MP_QSTR_mono_ns, MP_QSTR_pages, MP_QSTR_origin,
};

/* `origin` is the generation that a rollback went back to, else None; so is `tag` without one. */
static mp_obj_t history_entry(const struct generation_info *info) {
    mp_obj_t items[] = {
        mp_obj_new_int_from_ull(info->generation),
        info->tag[0] != 0 ? mp_obj_new_str_from_cstr(info->tag) : mp_const_none,
        mp_obj_new_int_from_ull(info->wall_ns),
        mp_obj_new_int_from_ull(info->mono_ns),
        mp_obj_new_int_from_ull(info->pages),
        info->flags & GENERATION_INFO_ROLLBACK ? mp_obj_new_int_from_ull(info->origin) : mp_const_none,
    };
    return mp_obj_new_attrtuple(history_fields, MP_ARRAY_SIZE(items), items);
}

/* The retained generations, oldest first. */
static mp_obj_t revenant_history(void) {
    struct generation_info info[8];
    mp_obj_t list = mp_obj_new_list(0, NULL);
    uint64_t last = 0;
    long size;
    while ((size = sys_history(info, sizeof info, last)) > 0) {
        for (size_t i = 0; i < (size_t)size / sizeof info[0]; i++) {
            mp_obj_list_append(list, history_entry(&info[i]));
            last = info[i].generation;
        }
    }
    checked(size);
    return list;
}
static MP_DEFINE_CONST_FUN_OBJ_0(revenant_history_obj, revenant_history);

static mp_obj_t revenant_power_off(void) {
    port_console_flush();
    checked(sys_power(POWER_OFF));
    mp_event_handle_nowait(); /* the machine has started again: callbacks first */
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_0(revenant_power_off_obj, revenant_power_off);

/* Returns the limit that held until now, in bytes; with an argument, sets another. */
static mp_obj_t revenant_heap_limit(size_t n_args, const mp_obj_t *args) {
    size_t limit = port_heap_limit;
    if (n_args > 0) {
        mp_int_t wanted = mp_obj_get_int(args[0]);
        if (wanted < 0) {
            mp_raise_ValueError(NULL);
        }
        port_heap_limit = wanted;
    }
    return mp_obj_new_int_from_uint(limit);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(revenant_heap_limit_obj, 0, 1, revenant_heap_limit);

/* In the order of struct machine_stats, which only grows at its end. */
static const uint16_t stats_name[] = {
    MP_QSTR_generation, MP_QSTR_epoch, MP_QSTR_resume_count, MP_QSTR_mono_ns, MP_QSTR_frames_total,
    MP_QSTR_frames_free, MP_QSTR_pages_dirty, MP_QSTR_pages_resident, MP_QSTR_faults, MP_QSTR_pages_copied,
    MP_QSTR_commits, MP_QSTR_commit_pages, MP_QSTR_commit_ns_last, MP_QSTR_freeze_cycles_last,
    MP_QSTR_freeze_cycles_max, MP_QSTR_write_fault_cycles, MP_QSTR_write_fault_count,
    MP_QSTR_write_fault_cycles_max, MP_QSTR_near_reads, MP_QSTR_near_writes, MP_QSTR_far_reads,
    MP_QSTR_far_requests, MP_QSTR_near_blocks_total, MP_QSTR_near_blocks_free, MP_QSTR_boot_cycles,
    MP_QSTR_throttled_count, MP_QSTR_throttled_ns, MP_QSTR_pages_dirty_max, MP_QSTR_resume_cycles,
    MP_QSTR_far_used, MP_QSTR_far_remaining, MP_QSTR_complete,
};
_Static_assert(MP_ARRAY_SIZE(stats_name) * sizeof(uint64_t) == offsetof(struct machine_stats, far), "machine_stats");

/* (fetched, verified, unused) of each far store of this start that gave anything, by its number. */
static mp_obj_t far_stats(const struct machine_stats *stats) {
    mp_obj_t dict = mp_obj_new_dict(0);
    for (size_t i = 0; i < MP_ARRAY_SIZE(stats->far); i++) {
        mp_obj_t items[] = {
            mp_obj_new_int_from_ull(stats->far[i].fetched), mp_obj_new_int_from_ull(stats->far[i].verified),
            mp_obj_new_int_from_ull(stats->far[i].unused),
        };
        if (stats->far[i].fetched != 0) {
            mp_obj_dict_store(dict, MP_OBJ_NEW_SMALL_INT(i + 1), mp_obj_new_tuple(MP_ARRAY_SIZE(items), items));
        }
    }
    return dict;
}

static mp_obj_t revenant_stats(void) {
    union {
        struct machine_stats stats;
        uint64_t value[MP_ARRAY_SIZE(stats_name)];
    } all = {0};
    long size = sys_stats(&all.stats);
    checked(size);
    mp_obj_t dict = mp_obj_new_dict(MP_ARRAY_SIZE(stats_name));
    for (size_t i = 0; i < MP_ARRAY_SIZE(stats_name) && i < (size_t)size / sizeof(uint64_t); i++) {
        mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(stats_name[i]), mp_obj_new_int_from_ull(all.value[i]));
    }
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_far), far_stats(&all.stats));
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_idle_cycles), mp_obj_new_int_from_ull(all.stats.idle_cycles));
    return dict;
}
static MP_DEFINE_CONST_FUN_OBJ_0(revenant_stats_obj, revenant_stats);

/* Returns its argument, so that it works as a decorator. None forgets all callbacks. */
static mp_obj_t revenant_on_resume(mp_obj_t callback) {
    if (callback == mp_const_none) {
        port_resume_init();
        return mp_const_none;
    }
    if (!mp_obj_is_callable(callback)) {
        mp_raise_TypeError(MP_ERROR_TEXT("callable needed"));
    }
    if (MP_STATE_PORT(resume_callbacks) == MP_OBJ_NULL) {
        MP_STATE_PORT(resume_callbacks) = mp_obj_new_list(0, NULL);
    }
    mp_obj_list_append(MP_STATE_PORT(resume_callbacks), callback);
    return callback;
}
static MP_DEFINE_CONST_FUN_OBJ_1(revenant_on_resume_obj, revenant_on_resume);

/* Run by the scheduler. Callbacks that register others do not get them called this time. */
static mp_obj_t resume_callbacks_run(mp_obj_t reason) {
    mp_obj_t callbacks = MP_STATE_PORT(resume_callbacks);
    size_t count = callbacks == MP_OBJ_NULL ? 0 : mp_obj_get_int(mp_obj_len(callbacks));
    for (size_t i = 0; i < count; i++) {
        size_t length;
        mp_obj_t *items;
        mp_obj_list_get(callbacks, &length, &items);
        mp_call_function_1_protected(items[i], reason);
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(resume_callbacks_run_obj, resume_callbacks_run);

/* random.seed() without argument takes port_random_seed(); it neither allocates nor raises. */
void port_random_reseed(void) {
    extern const mp_obj_module_t mp_module_random;
    mp_map_elem_t *seed = mp_map_lookup(&mp_module_random.globals->map, MP_OBJ_NEW_QSTR(MP_QSTR_seed), MP_MAP_LOOKUP);
    mp_call_function_0(seed->value);
}

void port_resume_init(void) {
    MP_STATE_PORT(resume_callbacks) = MP_OBJ_NULL;
}

/* With the scheduler's queue full, WAIT_RESUMED goes on to hold and the next wait or poll tries again. */
void port_resumed(void) {
    static const uint16_t names[] = {
        [RESUME_RESTART] = MP_QSTR_restart, [RESUME_ROLLBACK] = MP_QSTR_rollback,
        [RESUME_FORK] = MP_QSTR_fork, [RESUME_UPGRADE] = MP_QSTR_upgrade,
        [RESUME_OTHER_MACHINE] = MP_QSTR_other_space_machine,
    };
    enum resume_reason number = sys_resume_reason();
    mp_obj_t reason = MP_OBJ_NEW_QSTR(names[number < MP_ARRAY_SIZE(names) ? number : RESUME_RESTART]);
    if (mp_sched_schedule(MP_OBJ_FROM_PTR(&resume_callbacks_run_obj), reason)) {
        sys_resume_count();
        port_random_reseed();
    }
}

static const mp_rom_map_elem_t revenant_globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_revenant) },
    { MP_ROM_QSTR(MP_QSTR_generation), MP_ROM_PTR(&revenant_generation_obj) },
    { MP_ROM_QSTR(MP_QSTR_commit), MP_ROM_PTR(&revenant_commit_obj) },
    { MP_ROM_QSTR(MP_QSTR_tag), MP_ROM_PTR(&revenant_tag_obj) },
    { MP_ROM_QSTR(MP_QSTR_history), MP_ROM_PTR(&revenant_history_obj) },
    { MP_ROM_QSTR(MP_QSTR_on_resume), MP_ROM_PTR(&revenant_on_resume_obj) },
    { MP_ROM_QSTR(MP_QSTR_stats), MP_ROM_PTR(&revenant_stats_obj) },
    { MP_ROM_QSTR(MP_QSTR_heap_limit), MP_ROM_PTR(&revenant_heap_limit_obj) },
    { MP_ROM_QSTR(MP_QSTR_sleep_until), MP_ROM_PTR(&revenant_sleep_until_obj) },
    { MP_ROM_QSTR(MP_QSTR_power_off), MP_ROM_PTR(&revenant_power_off_obj) },
    { MP_ROM_QSTR(MP_QSTR_Files), MP_ROM_PTR(&revenant_files_type) },
    { MP_ROM_QSTR(MP_QSTR_spawn), MP_ROM_PTR(&revenant_spawn_obj) },
    { MP_ROM_QSTR(MP_QSTR_fork), MP_ROM_PTR(&revenant_fork_obj) },
    { MP_ROM_QSTR(MP_QSTR_processes), MP_ROM_PTR(&revenant_processes_obj) },
    { MP_ROM_QSTR(MP_QSTR_process_id), MP_ROM_PTR(&revenant_process_id_obj) },
    { MP_ROM_QSTR(MP_QSTR_parent_id), MP_ROM_PTR(&revenant_parent_id_obj) },
    { MP_ROM_QSTR(MP_QSTR_wait), MP_ROM_PTR(&revenant_wait_obj) },
    { MP_ROM_QSTR(MP_QSTR_kill), MP_ROM_PTR(&revenant_kill_obj) },
    { MP_ROM_QSTR(MP_QSTR_send), MP_ROM_PTR(&revenant_send_obj) },
    { MP_ROM_QSTR(MP_QSTR_receive), MP_ROM_PTR(&revenant_receive_obj) },
    { MP_ROM_QSTR(MP_QSTR_Poll), MP_ROM_PTR(&revenant_poll_type) },
};
static MP_DEFINE_CONST_DICT(revenant_globals, revenant_globals_table);

const mp_obj_module_t revenant_module = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&revenant_globals,
};

MP_REGISTER_MODULE(MP_QSTR_revenant, revenant_module);
MP_REGISTER_ROOT_POINTER(mp_obj_t resume_callbacks);
