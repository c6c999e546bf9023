/*
 * kernel/drivers/fw_cfg.c: reads a named file from QEMU's fw_cfg (fw_cfg.h; QEMU docs/specs/fw_cfg).
 *
 * Promise: a machine without fw_cfg is noticed by its signature; sizes from the host are bounded.
 * Called by: main.c, once. Context: start-up. A port read is an exit under emulation, so the search ends at the match.
 */
#include "drivers/fw_cfg.h"

#include "arch/x86_64/arch.h"
#include "lib/error.h"
#include "lib/lib.h"

enum {
    SELECTOR_PORT = 0x510,
    DATA_PORT = 0x511,
    KEY_SIGNATURE = 0x0000,
    KEY_DIRECTORY = 0x0019,
    NAME_SIZE = 56,
    FILE_COUNT_MAX = 4096, /* the selector has room for fewer */
};

static void read_bytes(void *to, size_t size) {
    uint8_t *bytes = to;
    for (size_t i = 0; i < size; i++)
        bytes[i] = arch_inb(DATA_PORT);
}

static uint32_t read_big_endian(unsigned size) {
    uint32_t value = 0;
    while (size--)
        value = value << 8 | arch_inb(DATA_PORT);
    return value;
}

static int is_present(void) {
    char signature[4];
    arch_outw(SELECTOR_PORT, KEY_SIGNATURE);
    read_bytes(signature, sizeof signature);
    return memcmp(signature, "QEMU", 4) == 0;
}

/* Leaves the file selected and returns its size, or -E_NOENT. */
static long select_file(const char *name) {
    arch_outw(SELECTOR_PORT, KEY_DIRECTORY);
    uint32_t file_count = read_big_endian(4);
    for (uint32_t i = 0; i < file_count && i < FILE_COUNT_MAX; i++) {
        uint32_t size = read_big_endian(4);
        uint16_t key = (uint16_t)read_big_endian(2);
        (void)read_big_endian(2); /* reserved */
        char entry[NAME_SIZE + 1];
        read_bytes(entry, NAME_SIZE);
        entry[NAME_SIZE] = 0;
        if (strcmp(entry, name) != 0)
            continue;
        arch_outw(SELECTOR_PORT, key);
        return (long)size;
    }
    return -E_NOENT;
}

long fw_cfg_read_file(const char *name, char *buffer, size_t size) {
    if (size == 0)
        return -E_INVAL;
    if (!is_present())
        return -E_NOENT;
    long file_size = select_file(name);
    if (file_size < 0)
        return file_size;
    size_t count = (size_t)file_size < size - 1 ? (size_t)file_size : size - 1;
    read_bytes(buffer, count);
    buffer[count] = 0;
    return (long)count;
}
