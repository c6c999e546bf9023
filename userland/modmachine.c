/*
 * userland/modmachine.c: the port's part of the module `machine`.
 *
 * Promise: reset() resets the machine and then starts the interpreter anew: what a power cut cannot do to a program, a
 * program may still do to itself. mem8, mem16 and mem32 reach the program's own memory only.
 * Included by: extmod/modmachine.c.
 */
#include "py/mperrno.h"
#include "py/mphal.h"

#include "syscall.h"

enum { RESET_CAUSE_POWER_ON = 1, RESET_CAUSE_HARD = 2 };

#define IDLE_MS 1

#define MICROPY_PY_MACHINE_EXTRA_GLOBALS \
    { MP_ROM_QSTR(MP_QSTR_unique_id), MP_ROM_PTR(&machine_unique_id_obj) }, \
    { MP_ROM_QSTR(MP_QSTR_PWRON_RESET), MP_ROM_INT(RESET_CAUSE_POWER_ON) }, \
    { MP_ROM_QSTR(MP_QSTR_HARD_RESET), MP_ROM_INT(RESET_CAUSE_HARD) }, \

/* Another one after `revenant fork`, or on a near of its own: 16 bytes. */
static mp_obj_t machine_unique_id(void) {
    byte id[MACHINE_ID_SIZE];
    if (sys_machine_id(id, sizeof id) != sizeof id) {
        mp_raise_OSError(MP_EIO);
    }
    return mp_obj_new_bytes(id, sizeof id);
}
MP_DEFINE_CONST_FUN_OBJ_0(machine_unique_id_obj, machine_unique_id);

static bool was_reset; /* persists, as everything does */

static void mp_machine_idle(void) {
    mp_event_wait_ms(IDLE_MS);
}

/* SYS_POWER returns after the next start; SystemExit from there is a soft reset. */
NORETURN static void mp_machine_reset(void) {
    bool was_reset_before = was_reset;
    was_reset = true;
    port_console_flush();
    if (sys_power(POWER_RESET) < 0) { /* a spawned process: the machine is not its own */
        was_reset = was_reset_before;
        mp_raise_OSError(MP_EPERM);
    }
    mp_raise_type(&mp_type_SystemExit);
}

static mp_int_t mp_machine_reset_cause(void) {
    return was_reset ? RESET_CAUSE_HARD : RESET_CAUSE_POWER_ON;
}
