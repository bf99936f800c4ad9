/*
 * JSON out, for logs and status: appends to a buf.  JSON in, for functions: a tree in an arena; the
 * one home of jansson.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/arena.h"
#include "base/buf.h"

/* jansson exports functions of these two names, so ours are linked under others. */
#define json_string json_put_string
#define json_null   json_put_null

/* Appends s as a JSON string with its quotes; each byte that is not UTF-8 becomes U+FFFD. */
void json_string(struct buf *out, str s);

/* A writer that puts the commas: json_open(&w, '{'); json_key(&w, STR("a")); json_u64(&w, 1);
 * json_close(&w).  Depth at most JSON_DEPTH_MAX. */
#define JSON_DEPTH_MAX 32
struct json_writer {
        struct buf *out;
        int depth;
        char kind[JSON_DEPTH_MAX];
        bool some[JSON_DEPTH_MAX], key;
};
void json_begin(struct json_writer *w, struct buf *out);
void json_open(struct json_writer *w, char kind); /* '{' or '[' */
void json_close(struct json_writer *w);
void json_key(struct json_writer *w, str name);
void json_str(struct json_writer *w, str s); /* absent: null */
void json_u64(struct json_writer *w, uint64_t v);
void json_i64(struct json_writer *w, int64_t v);
void json_double(struct json_writer *w, double v); /* null when it is no number */
void json_bool(struct json_writer *w, bool v);
void json_null(struct json_writer *w);

/* Types have the numbers and values the layout of weir_value in <weir/module.h>. */
enum json_kind {
        JSON_V_NULL = 1,
        JSON_V_BOOL = 2,
        JSON_V_INTEGER = 3,
        JSON_V_NUMBER = 4,
        JSON_V_STRING = 5,
        JSON_V_ARRAY = 6,
        JSON_V_OBJECT = 7
};

/* Immutable; all of it lives in the arena that json_parse was given. */
struct json_value {
        uint32_t size; /* of this struct */
        int32_t type;
        int64_t integer; /* INTEGER; BOOL: 0 or 1 */
        double number;   /* INTEGER and NUMBER */
        str str;         /* STRING: what it means; ARRAY and OBJECT: their source */
        str name;        /* of a member, in its object */
        size_t n;        /* elements or members, in the order of the source */
        const struct json_value *const *elem;
};

/* RFC 8259.  NULL when text is malformed, a name occurs twice in an object, an integer does not
 * fit 64 bits, arrays and objects are nested deeper than JSON_DEPTH_MAX, or the arena is full. */
MUST_CHECK const struct json_value *json_parse(struct arena *a, str text);

#endif
