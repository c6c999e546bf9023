/*
 * userland/exec.c: native code in the exec region, which the program executes and reads but only the kernel writes.
 *
 * Promise: code stays where it is until the next soft reset; a full region is a MemoryError.
 * Called by: py/asmbase.h and py/persistentcode.c through MP_PLAT_COMMIT_EXEC; main.c.
 */
#include "py/mphal.h"
#include "py/persistentcode.h"
#include "py/runtime.h"

#include "layout.h"
#include "syscall.h"

#define WRITE_SIZE_MAX 65536 /* of one system call */

static uintptr_t exec_next;

void port_exec_init(void) {
    exec_next = LAYOUT_EXEC_START;
}

void *port_exec_commit(void *buf, size_t len, void *reloc) {
    if (len > LAYOUT_EXEC_END - exec_next) {
        m_malloc_fail(len);
    }
    uintptr_t start = exec_next;
    if (reloc != NULL) {
        mp_native_relocate(reloc, buf, start);
    }
    for (size_t done = 0; done < len; done += WRITE_SIZE_MAX) {
        size_t size = len - done < WRITE_SIZE_MAX ? len - done : WRITE_SIZE_MAX;
        if (sys_exec_write((void *)(start + done), (const char *)buf + done, size) != 0) {
            m_malloc_fail(len);
        }
    }
    exec_next = (start + len + 15) & ~15ul;
    return (void *)start;
}
