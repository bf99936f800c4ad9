/*
 * The table of directives as data.
 */
#ifndef CONF_DIRECTIVE_H
#define CONF_DIRECTIVE_H

#include "conf/model.h"
#include "conf/tree.h"

enum context { TOP = 1, LISTEN = 2, HOST = 4, ROUTE = 8, UPSTREAM = 16, REDIS = 32, HOST_TLS = 64 };

enum value_type {
        TYPE_NONE,  /* the directive's function reads it */
        TYPE_TIME,  /* int64_t */
        TYPE_SIZE,  /* uint64_t */
        TYPE_COUNT, /* int, uint32_t or uint64_t */
        TYPE_BOOL,  /* bool */
        TYPE_SHARE, /* double */
        TYPE_WORD,  /* str */
        TYPE_PATH,  /* str, made absolute */
        TYPE_FILE,  /* struct file_text: it is read */
        TYPE_CAUSES /* uint32_t of RETRY_* */
};

enum {
        OFF = 1,    /* `off` stands for 0 (of a directive: alone) */
        AUTO = 2,   /* `auto` stands for 0 */
        SECRET = 4, /* never shown */
        MANY = 8,   /* may be written several times */
        MANY_WORDS = 16,
        BLOCK = 32, /* must have a block */
        BLOCK_OPTIONAL = 64,
        KEYS = 128, /* makes no sense without a key */
        FREE = 256  /* keys are not for the table to know */
};

struct compile;
struct scope;
struct args;
typedef void directive_fn(struct compile *c, struct scope *s, const struct args *a);

/* Where one value goes: at offset of the block's struct, or of its settings when bit >= 0. */
struct value_row {
        enum value_type type;
        size_t offset, size; /* size 0: nowhere */
        int64_t min, max;
        unsigned flags;
        int bit;
        const char *dflt;
};

struct directive {
        unsigned contexts;
        const char *name;
        directive_fn *fn;
        unsigned words_min, words_max;
        unsigned flags;
        bool refused;
        struct value_row value;
        const char *syntax, *dflt, *help, *example;
};

struct directive_key {
        unsigned contexts;
        const char *directive, *name;
        bool refused;
        struct value_row value;
        const char *form, *help;
};

extern const struct directive directives[];
extern const size_t directives_n;
extern const struct directive_key directive_keys[];
extern const size_t directive_keys_n;

const struct directive *directive_find(unsigned context, str name);
const struct directive_key *directive_key_find(const struct directive *d, unsigned context,
                                               str name);
/* Names that may stand in a context, for "did you mean": at most max; returns how many. */
size_t directive_names(unsigned context, str *names, size_t max);
size_t directive_key_names(const struct directive *d, unsigned context, str *names, size_t max);
/* "a listen block" */
const char *directive_context_name(unsigned context);
#define DIRECTIVE_NAMES_MAX 64
#define DIRECTIVES_MAX      128 /* rows of the table */

/* All that DIRECTIVE rows name. */
#define DIRECTIVE(ctx, name, fn, ...) directive_fn fn;
#define VALUE(...)
#define SETTING(...)
#define KEY(...)
#define SETTING_KEY(...)
#define WORD_KEY(...)
#define REFUSED(...)
#define REFUSED_KEY(...)
#include "conf/directive.tbl"
#undef DIRECTIVE
#undef VALUE
#undef SETTING
#undef KEY
#undef SETTING_KEY
#undef WORD_KEY
#undef REFUSED
#undef REFUSED_KEY
directive_fn compile_value; /* for VALUE and SETTING rows */

#endif
