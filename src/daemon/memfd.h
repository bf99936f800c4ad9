/*
 * Sealed memory files: how bytes pass from one process of weir to another so that neither can
 * change them afterwards.
 */
#ifndef DAEMON_MEMFD_H
#define DAEMON_MEMFD_H

#include "base/str.h"

/* A sealed memfd (close-on-exec) that holds parts[0..n) one after the other; -1 and errno. */
int memfd_make(const char *name, const str *parts, size_t n);
/* Maps a memfd whose seals promise that it can neither shrink nor change; absent: it is not one. fd
 * stays the caller's. Undo with memfd_unmap. */
str memfd_map(int fd);
void memfd_unmap(str map);

#endif
