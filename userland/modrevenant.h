/*
 * userland/modrevenant.h: what the module `revenant` is made of besides modrevenant.c itself.
 *
 * Promise: defined in files.c (Files) and processes.c (all others), shown to Python by modrevenant.c.
 * Used by: files.c, processes.c, modrevenant.c.
 */
#ifndef USERLAND_MODREVENANT_H
#define USERLAND_MODREVENANT_H

#include "py/obj.h"

extern const mp_obj_type_t revenant_files_type;
extern const mp_obj_type_t revenant_poll_type;
extern const mp_obj_fun_builtin_fixed_t revenant_processes_obj, revenant_process_id_obj, revenant_parent_id_obj;
extern const mp_obj_fun_builtin_fixed_t revenant_kill_obj, revenant_fork_obj;
extern const mp_obj_fun_builtin_var_t revenant_spawn_obj, revenant_wait_obj, revenant_send_obj, revenant_receive_obj;

#endif
