/*
 * userland/mpconfigport.h: which parts of MicroPython the port has, and how they reach the machine.
 *
 * Promise: level EVERYTHING, less what README.md names with its reason. Plain configuration; no code but declarations.
 * Included by: every file of MicroPython, first (through py/mpconfig.h), so it must stand on its own.
 */
#ifndef USERLAND_MPCONFIGPORT_H
#define USERLAND_MPCONFIGPORT_H

#include <stddef.h>
#include <stdint.h>
#include <alloca.h>

#define MICROPY_CONFIG_ROM_LEVEL                (MICROPY_CONFIG_ROM_LEVEL_EVERYTHING)

/* Types and numbers. */
typedef long mp_int_t;
typedef unsigned long mp_uint_t;
typedef long mp_off_t;
#define MP_STATE_PORT                           MP_STATE_VM
#define MICROPY_FLOAT_IMPL                      (MICROPY_FLOAT_IMPL_DOUBLE)
#define MICROPY_FLOAT_USE_NATIVE_FLT16          (0) /* would need helpers that libgcc's x86 build lacks */
#define MICROPY_LONGINT_IMPL                    (MICROPY_LONGINT_IMPL_MPZ)
#define MP_NEED_LOG2                            (1)
#define MICROPY_EPOCH_IS_1970                   (1)
#define MICROPY_USE_INTERNAL_ERRNO              (1)
#define MICROPY_USE_INTERNAL_PRINTF             (1)

/* Heap: one small area at first; others are added and given back as needed (heap.c). */
#define MICROPY_ENABLE_GC                       (1)
#define MICROPY_ENABLE_FINALISER                (1)
#define MICROPY_GC_SPLIT_HEAP                   (1)
#define MICROPY_GC_SPLIT_HEAP_AUTO              (1)
#define MICROPY_ALLOC_GC_STACK_SIZE             (1024)
#define MP_PLAT_ALLOC_HEAP(size)                port_heap_alloc(size)
#define MP_PLAT_FREE_HEAP(area)                 port_heap_free(area)
void *port_heap_alloc(size_t size);
void port_heap_free(void *area);
#define MICROPY_MEM_STATS                       (1)
#define MICROPY_MALLOC_USES_ALLOCATED_SIZE      (1)
#define MICROPY_ENABLE_EMERGENCY_EXCEPTION_BUF  (1)
#define MICROPY_EMERGENCY_EXCEPTION_BUF_SIZE    (256)

/* Native code: made in the heap, then copied by the kernel into a region that cannot be written (exec.c). */
#define MICROPY_EMIT_X64                        (1)
#define MICROPY_PERSISTENT_CODE_LOAD            (1)
#define MP_PLAT_COMMIT_EXEC(buf, len, reloc)    port_exec_commit(buf, len, reloc)
void *port_exec_commit(void *buf, size_t len, void *reloc);

/* Compiler, VM and messages. */
#define MICROPY_OPT_COMPUTED_GOTO               (1)
#define MICROPY_OPT_MAP_LOOKUP_CACHE_SIZE       (512) /* bytes; names share them, at 128 several hot ones one */
#define MICROPY_ERROR_REPORTING                 (MICROPY_ERROR_REPORTING_DETAILED)
#define MICROPY_WARNINGS                        (1)
#define MICROPY_PY_STR_BYTES_CMP_WARN           (1)
#define MICROPY_ALLOC_PATH_MAX                  (512)
#define MICROPY_SCHEDULER_DEPTH                 (8)

/* The VM looks for Ctrl-C, a resume and unsent output at every 1024th backward branch or return: a poll costs about 300
 * instructions, 1024 of the shortest loops about 30,000. */
#define PORT_POLL_PERIOD                        (1024)
extern unsigned int port_poll_countdown;
void port_poll(void);
#define PORT_VM_HOOK                            if (--port_poll_countdown == 0) { port_poll(); }
#define MICROPY_VM_HOOK_LOOP                    PORT_VM_HOOK
#define MICROPY_VM_HOOK_RETURN                  PORT_VM_HOOK
#define MICROPY_INTERNAL_EVENT_HOOK             port_poll()
#define MICROPY_INTERNAL_WFE(timeout_ms)        port_wait_ms(timeout_ms)
void port_wait_ms(mp_uint_t timeout_ms);

/* Prompt. */
#define MICROPY_HELPER_REPL                     (1)
#define MICROPY_REPL_INFO                       (1)
#define MICROPY_REPL_EMACS_WORDS_MOVE           (1)
#define MICROPY_REPL_EMACS_EXTRA_WORDS_MOVE     (1)
#define MICROPY_READLINE_HISTORY_SIZE           (50)
#define MICROPY_REPL_STDIN_BUFFER_MAX           (2048)
#define MICROPY_PY_BUILTINS_HELP_TEXT           port_help_text
extern const char port_help_text[];

/* A forked process ends with the program that forked it. */
void port_program_ended(void *exception);
#define MICROPY_BOARD_AFTER_PYTHON_EXEC(input_kind, flags, exception, result) port_program_ended(exception)

/* Names. */
#define MICROPY_HW_BOARD_NAME                   "Revenant"
#define MICROPY_HW_MCU_NAME                     "x86-64"
#define MICROPY_PY_SYS_PLATFORM                 "revenant"

/* Files. */
#define MICROPY_VFS                             (1)
#define MICROPY_READER_VFS                      (1)
#define MICROPY_VFS_ROM                         (1)
#define MICROPY_VFS_ROM_IOCTL                   (0)
#define MICROPY_FATFS_ENABLE_LFN                (1)
#define MICROPY_FATFS_RPATH                     (2)
#define MICROPY_FATFS_MAX_SS                    (4096)
#define MICROPY_FATFS_LFN_CODE_PAGE             437

/* Modules. */
#define MICROPY_STREAMS_POSIX_API               (0)
#define MICROPY_PY_SYS_STDFILES                 (1)
#define MICROPY_PY_SYS_STDIO_BUFFER             (1)
#define MICROPY_PY_SYS_EXC_INFO                 (1)
#define MICROPY_PY_SYS_ATEXIT                   (1)
#define MICROPY_PY_GC_COLLECT_RETVAL            (1)
#define MICROPY_PY_OS_INCLUDEFILE               "userland/modos.c"
#define MICROPY_PY_OS_UNAME                     (1)
#define MICROPY_PY_OS_URANDOM                   (1)
#define MICROPY_PY_OS_SYNC                      (1)
#define MICROPY_PY_TIME_INCLUDEFILE             "userland/modtime.c"
#define MICROPY_PY_TIME_GMTIME_LOCALTIME_MKTIME (1)
#define MICROPY_PY_TIME_TIME_TIME_NS            (1)
#define MICROPY_PY_RANDOM_SEED_INIT_FUNC        (port_random_seed())
unsigned long port_random_seed(void);
#define MICROPY_PY_MACHINE                      (1)
#define MICROPY_PY_MACHINE_INCLUDEFILE          "userland/modmachine.c"
#define MICROPY_PY_MACHINE_RESET                (1)
#define MICROPY_PY_MACHINE_PIN_BASE             (1)
#define MICROPY_PY_CRYPTOLIB                    (0) /* needs a TLS library */
#define MICROPY_PY_HASHLIB_MD5                  (0) /* needs a TLS library */
#define MICROPY_PY_HASHLIB_SHA1                 (0) /* needs a TLS library */
#define MICROPY_PY_SSL                          (0)
#define MICROPY_PY_BTREE                        (0)
#define MICROPY_PY_THREAD                       (1)
#define MICROPY_PY_THREAD_GIL                   (0) /* threads give way by themselves (thread.c) */
#define MICROPY_PY_NETWORK                      (0)
#define MICROPY_PY_SOCKET                       (0)
#define MICROPY_PY_WEBSOCKET                    (1)
#define MICROPY_PY_ONEWIRE                      (0)

#endif
