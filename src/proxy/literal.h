/*
 * What a regex must contain: sets of strings of which at least one occurs in every subject that it
 * matches.
 *
 * Pure.  Understands the common subset of PCRE2 and must only ever under-promise: whatever it does
 * not know makes it promise nothing, and PCRE2 decides.
 */
#ifndef PROXY_LITERAL_H
#define PROXY_LITERAL_H

#include "base/arena.h"

#define LITERAL_ALTERNATIVES 8 /* strings in one set */
#define LITERAL_SETS         8 /* sets kept for one pattern */

struct literal_set {
        uint32_t n;
        str s[LITERAL_ALTERNATIVES]; /* lower case, none empty; in the caller's arena */
};

struct literals {
        uint32_t n; /* 0: nothing is known */
        struct literal_set set[LITERAL_SETS];
};

void literal_extract(struct arena *a, str pattern, struct literals *out);

#endif
