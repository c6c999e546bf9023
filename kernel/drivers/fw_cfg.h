/* kernel/drivers/fw_cfg.h: reads a named file from QEMU's fw_cfg (docs/specs/fw_cfg). Called by: main.c, for the
 * options. */
#ifndef DRIVERS_FW_CFG_H
#define DRIVERS_FW_CFG_H
#include <stddef.h>
/* Bytes read into buffer (NUL-terminated, cut at size - 1), or -E_NOENT when there is no fw_cfg or no such file. */
long fw_cfg_read_file(const char *name, char *buffer, size_t size);
#endif
