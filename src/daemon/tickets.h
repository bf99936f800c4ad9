/*
 * The master's part in ticket keys: rotating its own, and reading a file that machines share.
 */
#ifndef DAEMON_TICKETS_H
#define DAEMON_TICKETS_H

#include "daemon/master.h"

void tickets_adopt(struct master *m); /* another plan is in force */

#endif
