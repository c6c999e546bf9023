/*
 * kernel/lib/options.h: the words of fw_cfg files opt/revenant/… (kernel/README.md). Called by: main.c, once.
 */
#ifndef LIB_OPTIONS_H
#define LIB_OPTIONS_H

#include <stdint.h>

#include "lib/lib.h"

struct options {
    uint64_t interval_ms;
    int relaxed;
    uint64_t test_spaces, test_resident;
    int record, fill;
    enum log_level log_level;
    int retain_given;
    uint32_t retain[3]; /* newest, hourly, daily */
    int trust_given;
    uint8_t trust[32];
    int key_given;
    uint8_t key[32];
};

/* Defaults where a word is missing. -E_INVAL: an unknown name, or a value out of range. */
int options_parse(struct options *options, const char *text);

/* FIRST:COUNT of fw_cfg file opt/revenant/packed; two zeros and -E_INVAL where it is not that. */
int options_parse_packed(uint64_t packed[2], const char *text);

#endif
