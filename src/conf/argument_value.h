/*
 * Values of arguments, by type.
 */
#ifndef CONF_ARGUMENT_VALUE_H
#define CONF_ARGUMENT_VALUE_H

#include "conf/argument.h"

#define ARGUMENT_NAMES 64 /* that a "did you mean" looks at */

/* What values of one struct need; the regex is the last REGEX argument of that struct. */
struct argument_env {
        struct conf *c;
        struct arena *a;
        const struct conf_handles *h;
        struct report *rep;
        struct function_conf *f;
        struct argument_constants *constants;
        const struct regex *regex;
        bool regex_broken;
};

/* w as arg's type into field; bounded: held against min and max, as a default is not. */
void argument_value(struct argument_env *e, const weir_arg *arg, const struct word *w, void *field,
                    bool bounded);
/* Index of word among the choices, -1 when it is none; names gets them all, *n how many. */
int32_t argument_choice(const weir_arg *arg, str word, str names[ARGUMENT_NAMES], size_t *n);
/* Notes where n bytes at from came from; arg: of a field, NULL: they are the word's text. */
void argument_place(struct argument_env *e, const void *from, size_t n, const struct word *w,
                    const weir_arg *arg);

#endif
