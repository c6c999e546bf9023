/*
 * userland/modos.c: the port's part of the module `os`.
 *
 * Promise: urandom's bytes come from the kernel and are never the same after a resume.
 * Included by: extmod/modos.c.
 */
#include "py/mperrno.h"

#include "syscall.h"

static mp_obj_t mp_os_urandom(mp_obj_t count_in) {
    mp_int_t count = mp_obj_get_int(count_in);
    if (count < 0) {
        mp_raise_ValueError(NULL);
    }
    vstr_t bytes;
    vstr_init_len(&bytes, count);
    for (mp_int_t done = 0; done < count;) {
        mp_int_t size = MIN(count - done, 256); /* the most that one system call gives */
        if (sys_random(bytes.buf + done, size) != size) {
            mp_raise_OSError(MP_EIO);
        }
        done += size;
    }
    return mp_obj_new_bytes_from_vstr(&bytes);
}
static MP_DEFINE_CONST_FUN_OBJ_1(mp_os_urandom_obj, mp_os_urandom);
