/*
 * userland/files.c: the files region as a block device, and its littlefs at "/".
 *
 * Promise: formatted once, when the region is still all zero; never again by itself. Blocks are pages, so that a
 * changed block is one dirty page. There is nothing to sync: persistence is the machine's.
 * Called by: main.c; Python code as revenant.Files().
 */
#include <string.h>

#include "extmod/vfs.h"
#include "extmod/vfs_lfs.h"
#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/objarray.h"
#include "py/runtime.h"
#include "lib/oofatfs/ff.h"
#include "shared/timeutils/timeutils.h"

#include "layout.h"
#include "modrevenant.h"

#define BLOCK_COUNT ((LAYOUT_FILES_END - LAYOUT_FILES_START) / LAYOUT_PAGE_SIZE)

static const mp_obj_base_t files_obj = { &revenant_files_type };

static mp_obj_t files_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    (void)type;
    mp_arg_check_num(n_args, n_kw, 0, 0, false);
    return MP_OBJ_FROM_PTR(&files_obj);
}

/* args: self, block index, buffer and, in the extended form, offset. The place in memory, checked. */
static char *files_place(size_t n_args, const mp_obj_t *args, mp_buffer_info_t *buffer, unsigned int access) {
    size_t block = mp_obj_get_int(args[1]);
    size_t offset = n_args > 3 ? mp_obj_get_int(args[3]) : 0;
    mp_get_buffer_raise(args[2], buffer, access);
    size_t files_size = LAYOUT_FILES_END - LAYOUT_FILES_START;
    if (block >= BLOCK_COUNT || offset > files_size - block * LAYOUT_PAGE_SIZE ||
        buffer->len > files_size - block * LAYOUT_PAGE_SIZE - offset) {
        mp_raise_OSError(MP_EINVAL);
    }
    return (char *)LAYOUT_FILES_START + block * LAYOUT_PAGE_SIZE + offset;
}

static mp_obj_t files_readblocks(size_t n_args, const mp_obj_t *args) {
    mp_buffer_info_t buffer;
    const char *place = files_place(n_args, args, &buffer, MP_BUFFER_WRITE);
    memcpy(buffer.buf, place, buffer.len);
    return MP_OBJ_NEW_SMALL_INT(0);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(files_readblocks_obj, 3, 4, files_readblocks);

static mp_obj_t files_writeblocks(size_t n_args, const mp_obj_t *args) {
    mp_buffer_info_t buffer;
    char *place = files_place(n_args, args, &buffer, MP_BUFFER_READ);
    memcpy(place, buffer.buf, buffer.len);
    return MP_OBJ_NEW_SMALL_INT(0);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(files_writeblocks_obj, 3, 4, files_writeblocks);

static mp_obj_t files_ioctl(mp_obj_t self, mp_obj_t command, mp_obj_t arg) {
    (void)self;
    (void)arg;
    switch (mp_obj_get_int(command)) {
        case MP_BLOCKDEV_IOCTL_INIT:
        case MP_BLOCKDEV_IOCTL_DEINIT:
        case MP_BLOCKDEV_IOCTL_SYNC:
        case MP_BLOCKDEV_IOCTL_BLOCK_ERASE: /* memory needs no erasing before a write */
            return MP_OBJ_NEW_SMALL_INT(0);
        case MP_BLOCKDEV_IOCTL_BLOCK_COUNT:
            return MP_OBJ_NEW_SMALL_INT(BLOCK_COUNT);
        case MP_BLOCKDEV_IOCTL_BLOCK_SIZE:
            return MP_OBJ_NEW_SMALL_INT(LAYOUT_PAGE_SIZE);
        default:
            return mp_const_none;
    }
}
static MP_DEFINE_CONST_FUN_OBJ_3(files_ioctl_obj, files_ioctl);

static const mp_rom_map_elem_t files_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_readblocks), MP_ROM_PTR(&files_readblocks_obj) },
    { MP_ROM_QSTR(MP_QSTR_writeblocks), MP_ROM_PTR(&files_writeblocks_obj) },
    { MP_ROM_QSTR(MP_QSTR_ioctl), MP_ROM_PTR(&files_ioctl_obj) },
};
static MP_DEFINE_CONST_DICT(files_locals, files_locals_table);

MP_DEFINE_CONST_OBJ_TYPE(
    revenant_files_type,
    MP_QSTR_Files,
    MP_TYPE_FLAG_NONE,
    make_new, files_make_new,
    locals_dict, &files_locals
    );

/* littlefs has its superblock in both of the first two blocks; either may be the newer one. */
static bool files_blank(void) {
    const uint64_t *first = (const uint64_t *)LAYOUT_FILES_START;
    const uint64_t *second = first + LAYOUT_PAGE_SIZE / sizeof *first;
    return first[0] == 0 && first[1] == 0 && second[0] == 0 && second[1] == 0;
}

static void files_format(void) {
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        mp_obj_t make[3];
        mp_load_method(MP_OBJ_FROM_PTR(&mp_type_vfs_lfs2), MP_QSTR_mkfs, make);
        make[2] = MP_OBJ_FROM_PTR(&files_obj);
        mp_call_method_n_kw(1, 0, make);
        nlr_pop();
    } else {
        mp_obj_print_exception(&mp_plat_print, MP_OBJ_FROM_PTR(nlr.ret_val));
    }
}

void port_files_mount(void) {
    if (files_blank()) {
        files_format();
    }
    int error = mp_vfs_mount_and_chdir_protected(MP_OBJ_FROM_PTR(&files_obj), MP_OBJ_NEW_QSTR(MP_QSTR__slash_));
    if (error != 0) {
        mp_printf(&mp_plat_print, "files: no file system could be mounted (error %d); going on without\n", error);
        return;
    }
    mp_obj_list_append(mp_sys_path, MP_OBJ_NEW_QSTR(MP_QSTR__slash_lib)); /* where mip installs */
}

/* What FAT writes into directories: years since 1980, two-second steps. */
DWORD get_fattime(void) {
    timeutils_struct_time_t tm;
    timeutils_seconds_since_epoch_to_struct_time(mp_hal_time_ns() / 1000000000, &tm);
    return (DWORD)(tm.tm_year - 1980) << 25 | tm.tm_mon << 21 | tm.tm_mday << 16 |
           tm.tm_hour << 11 | tm.tm_min << 5 | tm.tm_sec / 2;
}
