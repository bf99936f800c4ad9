/*
 * `weir module check` and `weir module test`: a module tried on the desk, in processes of its own.
 */
#ifndef DAEMON_DESK_H
#define DAEMON_DESK_H

#include "base/arena.h"

#define DESK_SECONDS 10 /* for loading, and for each case */

/* Prints one line: what the module in file is and needs, or why it cannot be used.  Exit status.
 * a: of the process. */
int desk_check(const char *file, struct arena *a);

/* Runs the cases of a text file (NULL: those in the module), prints a line for each, then how many
 * passed and failed.  Exit status. */
int desk_test(const char *file, const char *cases, struct arena *a);

#endif
