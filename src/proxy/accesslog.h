/*
 * Access logs: lines are formatted on the loop into a buffer of its own and written by one thread
 * per process; a log that cannot keep up drops lines and counts them, it never blocks a loop.
 */
#ifndef PROXY_ACCESSLOG_H
#define PROXY_ACCESSLOG_H

#include "proxy/txn.h"

/* Files are named by path; descriptors come from the master, which alone may open them.
 * Process-wide. */
void accesslog_start(void);              /* the writer thread */
void accesslog_set_fd(str path, int fd); /* control thread: takes fd over; replaces at reopen */
void accesslog_stop(void);               /* writes what is buffered, joins the thread */
void accesslog_write(struct txn *t, const struct access_log_conf *log); /* on the request's loop */
void accesslog_flush(struct loop *l);    /* hands this loop's buffers to the writer now (it does so
                                            each second by itself) */
void accesslog_loop_end(struct loop *l); /* the same, and frees them: before the thread ends */

#endif
