/*
 * Arguments of functions by their modules' schemas.
 */
#ifndef CONF_ARGUMENT_H
#define CONF_ARGUMENT_H

#include "conf/conf.h"
#include "conf/tree.h"

/* Something in an instance and where it was written: a field of it, or the bytes of a string. */
struct argument_place {
        const char *from;
        size_t n;
        struct word word;
        bool bytes;          /* from is the word's text */
        const weir_arg *arg; /* of a field: what it is; else NULL */
};

/* Of one function; for mistakes that its create finds. */
struct argument_places {
        struct argument_place *v;
        size_t n, cap;
};

/* Found while arguments are read: what becomes function_conf.constants. */
struct argument_constants {
        struct constant *v;
        size_t n, cap;
};

/* Reads the words from the first-th on and the block of f->tree into inst (f->desc->inst_size
 * bytes, zeroed). Mistakes go to rep. */
void argument_read(struct conf *c, const struct conf_handles *h, struct report *rep,
                   struct function_conf *f, size_t first, void *inst);
/* A word with no place in the file, such as a default. */
struct word argument_word(struct arena *a, str text, const struct conf_pos *pos);

#endif
