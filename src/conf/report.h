/*
 * Mistakes, all of them, each as   file:line:column: message   with the line and a caret under the
 * fault.
 */
#ifndef CONF_REPORT_H
#define CONF_REPORT_H

#include "base/arena.h"
#include "base/buf.h"

struct conf_pos {
        str file;           /* as the user knows it; absent: no place in a file */
        uint32_t line, col; /* from 1; col counts bytes */
        str text;           /* the whole line, for the caret */
};

/* Belongs to whoever asked for the reading; free the text with buf_clear. */
struct report {
        struct buf out; /* the text for the user */
        unsigned errors, warnings;
        struct arena *a; /* when set, each message's place is noted here, for report_merge */
        struct report_mark *marks;
        size_t n_marks, cap_marks;
};

/* at: NULL when the mistake has no place.  One message per call, without a final newline. */
void report_error(struct report *r, const struct conf_pos *at, const char *fmt, ...)
        PRINTF_LIKE(3, 4);
void report_warning(struct report *r, const struct conf_pos *at, const char *fmt, ...)
        PRINTF_LIKE(3, 4);
/* An error about word, which is none of names: says ' (did you mean "X"?)' when one is near. */
void report_unknown(struct report *r, const struct conf_pos *at, str word, const str *names,
                    size_t n, const char *fmt, ...) PRINTF_LIKE(6, 7);

/* Moves the messages of from, which has an arena, to the end of r: file by file, in the order of
 * lines. */
void report_merge(struct report *r, struct report *from);

/* The one of names that word was probably meant to be, or absent. */
str report_nearest(str word, const str *names, size_t n);

#endif
