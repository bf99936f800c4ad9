/*
 * Many strings looked for in one pass (Aho and Corasick, 1975): dense transitions over byte
 * classes.
 *
 * Immutable after automaton_new; shared by threads.  Matching folds ASCII upper case.
 */
#ifndef PROXY_AUTOMATON_H
#define PROXY_AUTOMATON_H

#include "base/str.h"

struct automaton;

struct automaton_word {
        str text;       /* lower case, not empty */
        uint32_t value; /* what a hit reports */
};

/* The words may be dropped afterwards. */
struct automaton *automaton_new(const struct automaton_word *words, size_t n);
void automaton_free(struct automaton *m);
/* Puts the values of all words that occur in s into out, in no order, possibly more than once.
 * Returns how many, or max + 1 when there are more than max. */
size_t automaton_find(const struct automaton *m, str s, uint32_t *out, size_t max);
size_t automaton_bytes(const struct automaton *m);

#endif
