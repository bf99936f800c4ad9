/*
 * Background work of functions: tasks outside of any request, on the thread that asked for them.
 */
#ifndef PROXY_WORK_H
#define PROXY_WORK_H

#include "proxy/task.h"

#define WORK_MAX 1000 /* of each instance on each thread */

/* The host call.  WEIR_E_FULL beyond WORK_MAX; in the checker, and once the generation is replaced,
 * nothing is begun, and that is no error. */
weir_err work_spawn(weir_task *t, int64_t after_us, weir_fn *fn, const void *data, size_t n);

/* Of one instance on this thread: its generation serves now; its works are over, those not begun,
 * or all of them (running). */
void work_activate(struct instance_loop *il);
void work_drop(struct instance_loop *il, bool running);

#endif
