/*
 * userland/modtime.c: the port's part of the module `time`: the wall clock, in UTC.
 *
 * Promise: whole seconds since 1970, as ints.
 * Included by: extmod/modtime.c.
 */
#include "shared/timeutils/timeutils.h"

static mp_uint_t wall_seconds(void) {
    return mp_hal_time_ns() / 1000000000;
}

static mp_obj_t mp_time_time_get(void) {
    return mp_obj_new_int_from_uint(wall_seconds());
}

static mp_obj_t mp_time_localtime_get(void) {
    timeutils_struct_time_t tm;
    timeutils_seconds_since_epoch_to_struct_time(wall_seconds(), &tm);
    mp_obj_t field[8] = {
        MP_OBJ_NEW_SMALL_INT(tm.tm_year), MP_OBJ_NEW_SMALL_INT(tm.tm_mon), MP_OBJ_NEW_SMALL_INT(tm.tm_mday),
        MP_OBJ_NEW_SMALL_INT(tm.tm_hour), MP_OBJ_NEW_SMALL_INT(tm.tm_min), MP_OBJ_NEW_SMALL_INT(tm.tm_sec),
        MP_OBJ_NEW_SMALL_INT(tm.tm_wday), MP_OBJ_NEW_SMALL_INT(tm.tm_yday),
    };
    return mp_obj_new_tuple(8, field);
}
