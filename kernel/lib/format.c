/*
 * kernel/lib/format.c: printf-like formatting into a buffer.
 *
 * Promise: %s %c %d %u %x %p %% with width, `0`, `-`, precision (number or `*`, strings only), l, ll, z; always ends
 * with NUL when size > 0; returns the length that the whole text has. An unknown directive is copied as it stands.
 * Called by: log.c and everybody, in any context; no state.
 */
#include "lib/lib.h"

struct output {
    char *buffer;
    size_t size;
    size_t length; /* wanted so far, may exceed size */
};

struct directive {
    int left, zero;
    size_t width;
    size_t precision; /* SIZE_MAX: none */
    int is_long;
};

static void put(struct output *out, char c) {
    if (out->length + 1 < out->size)
        out->buffer[out->length] = c;
    out->length++;
}

static void put_many(struct output *out, char c, size_t count) {
    while (count--)
        put(out, c);
}

/* sign: text that goes before zero padding */
static void put_padded(struct output *out, const struct directive *d, const char *sign, const char *text,
                       size_t length) {
    size_t sign_length = *sign ? strlen(sign) : 0;
    size_t used = sign_length + length;
    size_t fill = d->width > used ? d->width - used : 0;
    if (!d->left && !d->zero)
        put_many(out, ' ', fill);
    for (size_t i = 0; i < sign_length; i++)
        put(out, sign[i]);
    if (!d->left && d->zero)
        put_many(out, '0', fill);
    for (size_t i = 0; i < length; i++)
        put(out, text[i]);
    if (d->left)
        put_many(out, ' ', fill);
}

static void put_number(struct output *out, const struct directive *d, const char *sign, uint64_t value, unsigned base) {
    char digits[20];
    size_t start = sizeof digits;
    do {
        digits[--start] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    put_padded(out, d, sign, digits + start, sizeof digits - start);
}

static void put_text(struct output *out, const struct directive *d, const char *text) {
    if (!text)
        text = "(null)";
    size_t length = 0;
    while (length < d->precision && text[length])
        length++;
    struct directive padded = *d;
    padded.zero = 0;
    put_padded(out, &padded, "", text, length);
}

static const char *parse_count(const char *at, size_t *count, va_list *arguments) {
    if (*at == '*') {
        int given = va_arg(*arguments, int);
        *count = given < 0 ? 0 : (size_t)given;
        return at + 1;
    }
    for (*count = 0; *at >= '0' && *at <= '9'; at++)
        *count = *count * 10 + (size_t)(*at - '0');
    return at;
}

/* at: behind the percent sign; returns where the conversion letter is */
static const char *parse(const char *at, struct directive *d, va_list *arguments) {
    *d = (struct directive){.precision = SIZE_MAX};
    for (;; at++) {
        if (*at == '-')
            d->left = 1;
        else if (*at == '0')
            d->zero = 1;
        else
            break;
    }
    at = parse_count(at, &d->width, arguments);
    if (*at == '.')
        at = parse_count(at + 1, &d->precision, arguments);
    for (; *at == 'l' || *at == 'z'; at++)
        d->is_long = 1;
    return at;
}

static uint64_t next_unsigned(const struct directive *d, va_list *arguments) {
    return d->is_long ? va_arg(*arguments, uint64_t) : va_arg(*arguments, unsigned);
}

static int64_t next_signed(const struct directive *d, va_list *arguments) {
    return d->is_long ? va_arg(*arguments, int64_t) : va_arg(*arguments, int);
}

static void convert(struct output *out, char letter, const struct directive *d, va_list *arguments) {
    switch (letter) {
    case 's': put_text(out, d, va_arg(*arguments, const char *)); break;
    case 'c': put_padded(out, d, "", &(char){(char)va_arg(*arguments, int)}, 1); break;
    case 'u': put_number(out, d, "", next_unsigned(d, arguments), 10); break;
    case 'x': put_number(out, d, "", next_unsigned(d, arguments), 16); break;
    case 'p': put_number(out, d, "0x", (uintptr_t)va_arg(*arguments, void *), 16); break;
    case 'i':
    case 'd': {
        int64_t value = next_signed(d, arguments);
        put_number(out, d, value < 0 ? "-" : "", value < 0 ? -(uint64_t)value : (uint64_t)value, 10);
        break;
    }
    case '%': put(out, '%'); break;
    default: put(out, '%'), put(out, letter);
    }
}

int format_list(char *buffer, size_t size, const char *template, va_list arguments) {
    struct output out = {.buffer = buffer, .size = size};
    va_list rest;
    va_copy(rest, arguments);
    for (const char *at = template; *at; at++) {
        if (*at != '%') {
            put(&out, *at);
            continue;
        }
        struct directive d;
        at = parse(at + 1, &d, &rest);
        if (!*at)
            break;
        convert(&out, *at, &d, &rest);
    }
    va_end(rest);
    if (size)
        buffer[out.length < size ? out.length : size - 1] = 0;
    return (int)out.length;
}

int format(char *buffer, size_t size, const char *template, ...) {
    va_list arguments;
    va_start(arguments, template);
    int length = format_list(buffer, size, template, arguments);
    va_end(arguments);
    return length;
}
