/*
 * Speaking to a service manager: the datagrams of sd_notify(3) and the sockets of sd_listen_fds(3),
 * without its library.
 */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include "base/defs.h"

void notify_begin(void); /* reads and removes the variables; once, at start */
void notify_ready(void);
void notify_reloading(void);
void notify_stopping(void);
void notify_main_pid(int pid); /* an upgrade: the new master */
void notify_status(const char *text);
int64_t notify_watchdog(void); /* us between notify_alive calls; 0: not asked for */
void notify_alive(void);
/* Sockets that were handed over: first descriptor and how many. */
unsigned notify_sockets(int *first);
void notify_pass_on(void); /* sets the variables again: an upgrade is about to be executed */

#endif
