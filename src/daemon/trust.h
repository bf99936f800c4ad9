/*
 * Whose files may become code: a module is loaded only when nobody but root, or the user weir runs
 * as, can have written it.
 */
#ifndef DAEMON_TRUST_H
#define DAEMON_TRUST_H

#include "base/arena.h"
#include "daemon/proc.h"

#include <sys/stat.h>

/* Opens the file for reading.  -1: *error says why, naming the file or folder.  user: of the
 * workers. */
MUST_CHECK int trust_open(str path, const struct proc_user *user, struct arena *a, str *error);

/* The rule for the file itself: pure.  false: *error has what is wrong, without its name. */
MUST_CHECK bool trust_file(const struct stat *st, const struct proc_user *user, struct arena *a,
                           str *error);

#endif
