/*
 * Text of the configuration's language, as the effective configuration is printed: words, lines and
 * blocks, and the values of whatever the table of directives knows.
 */
#ifndef CONF_WRITER_H
#define CONF_WRITER_H

#include "base/buf.h"
#include "conf/model.h"

#define WRITER_MASK STR("********") /* in the place of a secret */

/* Where it goes, and how deep in blocks it is.  The caller's. */
struct writer {
        struct buf *out;
        unsigned depth;
};

/* ---- words of a line, each with a blank before it */
void writer_text(struct writer *d, str s); /* without the blank */
void writer_word(struct writer *d, str s);
void writer_pair(struct writer *d, const char *key, str s);

/* ---- lines and blocks: begin ... end, or begin ... open ... close */
void writer_begin(struct writer *d, const char *name);
void writer_end(struct writer *d);
void writer_open(struct writer *d);
void writer_close(struct writer *d);
void writer_line(struct writer *d, const char *name, str word);
void writer_words(struct writer *d, const char *name, const str *v, size_t n); /* none: no line */

/* ---- what the table of directives (conf/directive.tbl) says of a context */
/* Lines of single values that have a place in object. */
void writer_values(struct writer *d, unsigned context, const void *object);
/* The keys of a directive that have a place in object, in its line. */
void writer_keys(struct writer *d, unsigned context, const char *directive, const void *object);
/* Lines of the settings that were written. */
void writer_settings(struct writer *d, unsigned context, const struct settings *s);

#endif
