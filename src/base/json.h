/*
 * JSON out, for logs and status: appends to a buf.  (JSON in, for functions: jansson, in json.c.)
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/buf.h"

/* Appends s as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void json_string(struct buf *out, str s);

/* A writer that puts the commas: json_open(&w, '{'); json_key(&w, STR("a")); json_u64(&w, 1);
 * json_close(&w).  Depth at most 32. */
struct json_writer { struct buf *out; int depth; char kind[32]; bool some[32], key; };
void json_begin(struct json_writer *w, struct buf *out);
void json_open(struct json_writer *w, char kind);          /* '{' or '[' */
void json_close(struct json_writer *w);
void json_key(struct json_writer *w, str name);
void json_str(struct json_writer *w, str s);
void json_u64(struct json_writer *w, uint64_t v);
void json_double(struct json_writer *w, double v);
void json_bool(struct json_writer *w, bool v);
void json_null(struct json_writer *w);

#endif
