/*
 * The checker: a process forked for one start, reload or `weir -t`, which reads everything a
 * configuration names and proves that it can be built.
 */
#ifndef DAEMON_CHECKER_H
#define DAEMON_CHECKER_H

#include "daemon/board.h"
#include "daemon/options.h"

#include <sys/types.h>

#define CHECKER_CPU_SECONDS 60
#define CHECKER_WALL        (60 * SEC)

struct checker {
        pid_t pid;
        int channel; /* records as in wire.h: PLAN, then VERDICT */
};

/* Forks.  board: a row 0 for its crumbs, may be NULL.  log_fd: kept open in the child (-1: none but
 * standard error).  dump: prints the effective configuration to standard output when all is well.
 * false: errno. */
MUST_CHECK bool checker_start(const struct options *o, uint32_t number, struct board *board,
                              int log_fd, bool dump, struct checker *out);

/* `weir -t` and `-T`: exit status. */
int checker_foreground(const struct options *o);

#endif
