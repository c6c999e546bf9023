/*
 * userland/codec.c: see codec.h. A value is a letter and what belongs to it:
 *   N None, T True, F False, d a double of 8 bytes, i a length and the digits of an int in base 16, s and b a length
 *   and the bytes of a str or bytes, ( [ { a count and the elements of a tuple, list, dict (key, value, key, ...).
 * Lengths and counts are of 4 bytes, little-endian.
 * Called by: processes.c. Recursion is bounded by MicroPython's own check of the C stack.
 */
#include <string.h>

#include "py/cstack.h"
#include "py/objint.h"
#include "py/objstr.h"
#include "py/objtuple.h"
#include "py/parsenum.h"
#include "py/runtime.h"

#include "codec.h"

/* --- encode --- */

static void add_head(vstr_t *to, char kind, size_t length) {
    uint32_t word = length;
    if (word != length) {
        mp_raise_ValueError(MP_ERROR_TEXT("too long for a message"));
    }
    vstr_add_byte(to, kind);
    vstr_add_strn(to, (const char *)&word, sizeof word);
}

static void add_text(vstr_t *to, char kind, const char *text, size_t length) {
    add_head(to, kind, length);
    vstr_add_strn(to, text, length);
}

static void add_int(vstr_t *to, mp_obj_t value) {
    char small[32], *buffer = small;
    size_t buffer_size = sizeof small, length;
    const char *digits = mp_obj_int_formatted(&buffer, &buffer_size, &length, value, 16, NULL, 'a', '\0');
    add_text(to, 'i', digits, length);
}

static void add_float(vstr_t *to, mp_float_t value) {
    vstr_add_byte(to, 'd');
    vstr_add_strn(to, (const char *)&value, sizeof value);
}

static void add_items(vstr_t *to, char kind, mp_obj_t value) {
    size_t count;
    mp_obj_t *items;
    mp_obj_get_array(value, &count, &items);
    add_head(to, kind, count);
    for (size_t i = 0; i < count; i++) {
        codec_encode(to, items[i]);
    }
}

static void add_dict(vstr_t *to, mp_obj_t value) {
    const mp_map_t *map = mp_obj_dict_get_map(value);
    add_head(to, '{', map->used);
    for (size_t i = 0; i < map->alloc; i++) {
        if (mp_map_slot_is_filled(map, i)) {
            codec_encode(to, map->table[i].key);
            codec_encode(to, map->table[i].value);
        }
    }
}

void codec_encode(vstr_t *to, mp_obj_t value) {
    mp_cstack_check();
    if (value == mp_const_none || mp_obj_is_bool(value)) {
        vstr_add_byte(to, value == mp_const_none ? 'N' : value == mp_const_true ? 'T' : 'F');
    } else if (mp_obj_is_int(value)) {
        add_int(to, value);
    } else if (mp_obj_is_float(value)) {
        add_float(to, mp_obj_get_float(value));
    } else if (mp_obj_is_str(value) || mp_obj_is_type(value, &mp_type_bytes)) {
        size_t length;
        const char *text = mp_obj_str_get_data(value, &length);
        add_text(to, mp_obj_is_str(value) ? 's' : 'b', text, length);
    } else if (mp_obj_is_type(value, &mp_type_tuple)) {
        add_items(to, '(', value);
    } else if (mp_obj_is_type(value, &mp_type_list)) {
        add_items(to, '[', value);
    } else if (mp_obj_is_type(value, &mp_type_dict)) {
        add_dict(to, value);
    } else {
        mp_raise_msg_varg(&mp_type_TypeError, MP_ERROR_TEXT("a message cannot hold '%s'"), mp_obj_get_type_str(value));
    }
}

/* --- decode --- */

struct reader {
    const byte *at, *end;
};

NORETURN static void bad_message(void) {
    mp_raise_ValueError(MP_ERROR_TEXT("not a message of send()"));
}

static const byte *take(struct reader *from, size_t size) {
    const byte *start = from->at;
    if (size > (size_t)(from->end - start)) {
        bad_message();
    }
    from->at += size;
    return start;
}

/* Each element has a byte at least, so that a count cannot claim more than there is. */
static size_t take_count(struct reader *from) {
    uint32_t count;
    memcpy(&count, take(from, sizeof count), sizeof count);
    if (count > (size_t)(from->end - from->at)) {
        bad_message();
    }
    return count;
}

static mp_obj_t take_value(struct reader *from);

static mp_obj_t take_float(struct reader *from) {
    mp_float_t value;
    memcpy(&value, take(from, sizeof value), sizeof value);
    return mp_obj_new_float(value);
}

static mp_obj_t take_text(struct reader *from, char kind) {
    size_t length = take_count(from);
    const char *text = (const char *)take(from, length);
    if (kind == 'i') {
        return mp_parse_num_integer(text, length, 16, NULL);
    }
    return kind == 's' ? mp_obj_new_str(text, length) : mp_obj_new_bytes((const byte *)text, length);
}

static mp_obj_t take_items(struct reader *from, char kind) {
    size_t count = take_count(from);
    mp_obj_t list = mp_obj_new_list(0, NULL);
    for (size_t i = 0; i < count; i++) {
        mp_obj_list_append(list, take_value(from));
    }
    if (kind == '[') {
        return list;
    }
    mp_obj_t *items;
    mp_obj_list_get(list, &count, &items);
    return mp_obj_new_tuple(count, items);
}

static mp_obj_t take_dict(struct reader *from) {
    size_t count = take_count(from);
    mp_obj_t dict = mp_obj_new_dict(0);
    for (size_t i = 0; i < count; i++) {
        mp_obj_t key = take_value(from);
        mp_obj_dict_store(dict, key, take_value(from));
    }
    return dict;
}

static mp_obj_t take_value(struct reader *from) {
    mp_cstack_check();
    char kind = *take(from, 1);
    switch (kind) {
        case 'N':
            return mp_const_none;
        case 'T':
            return mp_const_true;
        case 'F':
            return mp_const_false;
        case 'd':
            return take_float(from);
        case 'i':
        case 's':
        case 'b':
            return take_text(from, kind);
        case '(':
        case '[':
            return take_items(from, kind);
        case '{':
            return take_dict(from);
        default:
            bad_message();
    }
}

mp_obj_t codec_decode(const byte *from, size_t size) {
    struct reader reader = { from, from + size };
    mp_obj_t value = take_value(&reader);
    if (reader.at != reader.end) {
        bad_message();
    }
    return value;
}
