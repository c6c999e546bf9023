/*
 * userland/codec.h: Python values as bytes, for messages between processes.
 *
 * Promise: what was encoded decodes to an equal value of the same type: None, bool, int, float, str, bytes, tuple,
 * list, dict. Bytes that no encoder made are a ValueError, never a wrong access.
 * Used by: processes.c.
 */
#ifndef USERLAND_CODEC_H
#define USERLAND_CODEC_H

#include "py/obj.h"

void codec_encode(vstr_t *to, mp_obj_t value);   /* TypeError for what cannot be sent */
mp_obj_t codec_decode(const byte *from, size_t size);

#endif
