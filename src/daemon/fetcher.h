/*
 * The fetcher: a process without rights that brings from the network what all workers share and no
 * request can wait for (OCSP responses, ticket keys in Redis), into memory that outlives it and
 * them.
 *
 *   master --fork, after each commit that has something to fetch--> fetcher: one loop
 *
 * The master parses nothing of what comes and no worker spends a loop's turn on it.  A reload
 * replaces the process; what it had fetched stays where it is.
 */
#ifndef DAEMON_FETCHER_H
#define DAEMON_FETCHER_H

#include "daemon/master.h"

/* Before the workers prepare the plan of the reload under way: a place for each of its responses.
 */
void fetcher_claim(struct master *m);
void fetcher_restart(struct master *m); /* for the plan in force; ends the one before */
void fetcher_stop(struct master *m);    /* has ended when this returns */
/* A process has ended: was it the fetcher? */
bool fetcher_reaped(struct master *m, pid_t pid, int status);

#endif
