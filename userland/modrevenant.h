/*
 * userland/modrevenant.h: what files.c and modrevenant.c share.
 *
 * Promise: one type, defined in files.c, shown to Python by modrevenant.c.
 * Used by: files.c, modrevenant.c.
 */
#ifndef USERLAND_MODREVENANT_H
#define USERLAND_MODREVENANT_H

#include "py/obj.h"

extern const mp_obj_type_t revenant_files_type;

#endif
