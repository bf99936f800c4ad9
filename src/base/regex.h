/*
 * Regular expressions: the one home of PCRE2.
 *
 * Compiled code is immutable and shared by threads; match data, match context and JIT stack are
 * per thread, made on first use.  Bytes, never UTF.  \C and UTF switches are refused.
 */
#ifndef BASE_REGEX_H
#define BASE_REGEX_H

#include "base/str.h"

struct regex;

#define REGEX_GROUPS_MAX          64 /* of one pattern, the whole match included; more does not compile */
#define REGEX_MATCH_LIMIT_DEFAULT 100000

enum { REGEX_ICASE = 1 };
enum regex_result { REGEX_NO = 0, REGEX_YES = 1, REGEX_LIMIT = -1 };

/* Captures of one match as offsets into the subject; a group that did not take part has so < 0. */
struct regex_captures {
        uint32_t n; /* groups incl. 0 that are filled in */
        struct {
                int32_t so, eo;
        } g[REGEX_GROUPS_MAX];
};

struct regex_error {
        size_t offset;
        char text[160];
};

/* NULL on error, with *err filled. */
MUST_CHECK struct regex *regex_new(str pattern, unsigned flags, struct regex_error *err);
void regex_free(struct regex *re);
/* caps may be NULL.  REGEX_LIMIT: the match or JIT stack limit was hit; never treat it as "no". */
MUST_CHECK enum regex_result regex_match(const struct regex *re, str subject, size_t start,
                                         struct regex_captures *caps);
uint32_t regex_groups(const struct regex *re);     /* incl. group 0 */
int regex_group(const struct regex *re, str name); /* number, or -1 */
/* Name of the i-th named group (0..), its number in *group; absent past the end. */
str regex_group_name(const struct regex *re, uint32_t i, int *group);
void regex_set_match_limit(uint32_t limit); /* process-wide, before threads start */
void regex_thread_end(void);

#endif
