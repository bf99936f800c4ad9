/*
 * Rules about fields that both codecs and flow need (RFC 9110 5 and 7.6.1).
 */
#ifndef HTTP_FIELD_H
#define HTTP_FIELD_H

#include "http/msg.h"

/* What a byte may be part of.  FIELD_C_HOST: a name or IPv4 address in an authority. */
enum {
        FIELD_C_TOKEN = 1,
        FIELD_C_TEXT = 2,
        FIELD_C_TARGET = 4,
        FIELD_C_HOST = 8,
        FIELD_C_HEX = 16
};
extern const unsigned char field_chars[256];

/* The first byte of s[i..) that is no text: a control (TAB is text), or s.n. */
size_t field_text_end(str s, size_t i);

bool field_name_ok(str name); /* token */
bool field_value_ok(
        str value); /* no CR, LF, NUL or other control but TAB; no blank at either end */
/* Removes hop-by-hop fields and what Connection nominates (never FIELD_F_FRAMING ones: traps 1). */
void field_strip_hop(struct fields *f);
/* The next element of a comma list, trimmed, quoted strings respected; false at the end. */
bool field_list_next(str *rest, str *elem);
bool field_list_has(str list, str token); /* without case */
bool field_settable(enum field_id id);    /* by a function: not framing, not hop-by-hop */

/* Date of now as in RFC 9110 5.6.7, cached per second and thread; 29 bytes. */
str field_date(int64_t wall_us);

#endif
