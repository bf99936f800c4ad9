/*
 * A module's own test cases, run before a configuration that uses it may become active.
 */
#ifndef PROXY_CASES_H
#define PROXY_CASES_H

#include "conf/report.h"
#include "module/module.h"

/* Runs all of m's cases with a clock, a Redis and upstreams that are not real.  Those that fail are
 * errors at `at`.  The thread's own loop, if it has one, is not touched. */
void cases_run(const struct module *m, const struct conf_pos *at, struct report *rep);

#endif
