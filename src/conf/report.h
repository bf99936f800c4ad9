/*
 * Mistakes, all of them, each as   file:line:column: message   with the line and a caret under the fault.
 */
#ifndef CONF_REPORT_H
#define CONF_REPORT_H

#include "base/buf.h"

struct conf_pos {
        str file;            /* as the user knows it */
        uint32_t line, col;  /* from 1 */
        str text;            /* the whole line, for the caret */
};

struct report {
        struct buf out;      /* the text for the user */
        unsigned errors, warnings;
};

void report_error(struct report *r, const struct conf_pos *at, const char *fmt, ...) PRINTF_LIKE(3, 4);
void report_warning(struct report *r, const struct conf_pos *at, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Appends ' (did you mean "X"?)' to the last message's line when one of names is near enough to word. */
void report_suggest(struct report *r, str word, const str *names, size_t n);

#endif
