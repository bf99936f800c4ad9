/*
 * What a process of weir does to itself after a fork: descriptors, signals, rights; and how many
 * CPUs it may use.
 */
#ifndef DAEMON_PROC_H
#define DAEMON_PROC_H

#include "base/str.h"

/* Closes every descriptor above 2 but those in keep (any order, -1 is skipped). */
void proc_close_others(const int *keep, size_t n);
/* Nothing blocked, but signals that are meant for the master do not touch this process. */
void proc_child_signals(void);

struct proc_user {
        bool set;
        uint32_t uid, gid;
};
/* Gives up everything that is not needed: user and groups (when root and set), all capabilities,
 * new privileges.  Cores stay possible. false: errno. */
MUST_CHECK bool proc_drop(const struct proc_user *u);

/* CPUs of the affinity mask, bounded by the cgroup's quota; at least 1. */
unsigned proc_cpus(void);
/* cpu.max of cgroup v2 as a number of CPUs, rounded up; 0: no bound, or not understood.  Pure. */
unsigned proc_quota(str cpu_max);

int64_t proc_now(void); /* CLOCK_MONOTONIC, us */

#endif
