/*
 * A module's own test cases, run before a configuration that uses it may become active.
 */
#ifndef PROXY_CASES_H
#define PROXY_CASES_H

#include "conf/report.h"
#include "module/module.h"

/* How one case ended. */
struct case_result {
        str why;         /* all of it in words; absent: it passed */
        str wanted, got; /* an expectation that does not hold, and what there was; else absent */
        const char *at;  /* the place in one of the case's texts that this is about, or NULL */
};
/* Runs one case, which need not be m's own.  Texts of *out live in a.  Log lines are written. */
void cases_one(const struct module *m, const weir_case *c, struct arena *a,
               struct case_result *out);

/* Runs all of m's cases with a clock, a Redis and upstreams that are not real.  Those that fail are
 * errors at `at`.  The thread's own loop, if it has one, is not touched. */
void cases_run(const struct module *m, const struct conf_pos *at, struct report *rep);

#endif
