/*
 * kernel/lib/options.c: parses name=value words. The text comes from the host: everything in it is checked.
 */
#include "lib/options.h"

#include "lib/error.h"

enum { INTERVAL_MS_DEFAULT = 100, INTERVAL_MS_MAX = 60000, TEST_SPACES_MAX = 128, TEST_RESIDENT_MAX = 1 << 24,
       RETAIN_MAX = 1024 };

static int is_blank(char c) { return c == ' ' || c == '\n' || c == '\t'; }

static int parse_number(const char *text, size_t length, uint64_t max, uint64_t *value) {
    *value = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -E_INVAL;
        *value = *value * 10 + (uint64_t)(text[i] - '0');
        if (*value > max)
            return -E_RANGE;
    }
    return length > 0 ? 0 : -E_INVAL;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int parse_hash(const char *text, size_t length, uint8_t hash[32]) {
    if (length != 64)
        return -E_INVAL;
    for (unsigned i = 0; i < 32; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return -E_INVAL;
        hash[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

/* `count` numbers with colons between them. */
static int parse_numbers(const char *text, size_t length, unsigned count, uint64_t max, uint64_t *number) {
    for (unsigned i = 0; i < count; i++) {
        size_t part = 0;
        while (part < length && text[part] != ':')
            part++;
        int status = parse_number(text, part, max, &number[i]);
        if (status != 0 || (part == length) != (i == count - 1))
            return -E_INVAL;
        text += part + 1;
        length -= part + (i < count - 1);
    }
    return 0;
}

static int parse_retain(const char *text, size_t length, uint32_t retain[3]) {
    uint64_t number[3];
    int status = parse_numbers(text, length, 3, RETAIN_MAX, number);
    for (unsigned i = 0; status == 0 && i < 3; i++)
        retain[i] = (uint32_t)number[i];
    return status;
}

static int name_is(const char *text, size_t length, const char *name) {
    return strlen(name) == length && strncmp(text, name, length) == 0;
}

static int parse_word(struct options *options, const char *name, size_t name_length, const char *value,
                      size_t value_length) {
    uint64_t number = 0;
    int status = -E_INVAL;
    if (name_is(name, name_length, "trust")) {
        options->trust_given = 1;
        return parse_hash(value, value_length, options->trust);
    }
    if (name_is(name, name_length, "trust_key")) {
        options->key_given = 1;
        return parse_hash(value, value_length, options->key);
    }
    if (name_is(name, name_length, "retain")) {
        options->retain_given = 1;
        return parse_retain(value, value_length, options->retain);
    }
    if (name_is(name, name_length, "interval_ms")) {
        status = parse_number(value, value_length, INTERVAL_MS_MAX, &options->interval_ms);
    } else if (name_is(name, name_length, "relaxed")) {
        status = parse_number(value, value_length, 1, &number);
        options->relaxed = (int)number;
    } else if (name_is(name, name_length, "fill")) {
        status = parse_number(value, value_length, 1, &number);
        options->fill = (int)number;
    } else if (name_is(name, name_length, "record")) {
        status = parse_number(value, value_length, 1, &number);
        options->record = (int)number;
    } else if (name_is(name, name_length, "test_spaces")) {
        status = parse_number(value, value_length, TEST_SPACES_MAX, &options->test_spaces);
    } else if (name_is(name, name_length, "test_resident")) {
        status = parse_number(value, value_length, TEST_RESIDENT_MAX, &options->test_resident);
    } else if (name_is(name, name_length, "log")) {
        status = parse_number(value, value_length, LOG_DEBUG, &number);
        options->log_level = (enum log_level)number;
    }
    return status;
}

int options_parse(struct options *options, const char *text) {
    *options = (struct options){.interval_ms = INTERVAL_MS_DEFAULT, .fill = 1, .log_level = LOG_NOTICE};
    while (*text != 0) {
        if (is_blank(*text)) {
            text++;
            continue;
        }
        const char *end = text, *equals = NULL;
        for (; *end != 0 && !is_blank(*end); end++)
            if (*end == '=' && equals == NULL)
                equals = end;
        if (equals == NULL)
            return -E_INVAL;
        int status = parse_word(options, text, (size_t)(equals - text), equals + 1, (size_t)(end - equals - 1));
        if (status != 0)
            return status;
        text = end;
    }
    return 0;
}

int options_parse_packed(uint64_t packed[2], const char *text) {
    int status = parse_numbers(text, strlen(text), 2, UINT32_MAX, packed);
    if (status != 0)
        packed[0] = packed[1] = 0;
    return status;
}
