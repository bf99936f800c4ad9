/*
 * A configuration as blocks and words, without any meaning.
 */
#ifndef CONF_TREE_H
#define CONF_TREE_H

#include "conf/lex.h"

/* One directive: its words (the first is its name) and, when has_block, what stands in its braces,
 * includes replaced by what they name.  The root has no words.  Immutable, in the configuration's
 * arena. */
struct tree {
        struct word *words;
        size_t n_words;
        bool has_block;
        bool broken; /* a quote in it never ends: it is not worth reading */
        struct tree **child;
        size_t n_children;
        struct conf_pos end; /* behind the last word */
};

/* Reads path (absolute) and what it includes.  NULL only when path itself cannot be read; mistakes
 * are in rep, and what could be read is in the tree all the same. */
struct tree *tree_read(struct source *src, struct arena *a, struct report *rep, str path,
                       str prefix);

static inline str tree_name(const struct tree *t)
{
        return t->n_words ? t->words[0].text : STR("");
}

/* Whether a directive of that name stands in the block, right or wrong. */
bool tree_has(const struct tree *t, const char *name);

#endif
