/*
 * A bundle: everything a generation is made from, collected once, as the master's user, into one
 * sealed memfd.
 *
 * Entries: (kind, name, content): config and other files by absolute path, glob results,
 * environment, users, module files. The collecting source reads the system and records; the
 * replaying source answers from the bundle only.
 */
#ifndef DAEMON_BUNDLE_H
#define DAEMON_BUNDLE_H

#include "conf/source.h"

struct bundle;
struct bundle *bundle_collect(void);            /* empty, recording */
struct source *bundle_source(struct bundle *b); /* collecting or replaying */
/* Records (again) a file that somebody else has read; collecting. */
void bundle_put_file(struct bundle *b, str path, str content);
int bundle_seal(struct bundle *b); /* memfd with all entries, sealed; -1 and errno */
struct bundle *bundle_map(int fd); /* replaying; NULL: not a bundle.  fd may be closed afterwards */
void bundle_free(struct bundle *b);
/* Do two mapped ones hold the same but for the content of that file? */
bool bundle_same_but(struct bundle *a, struct bundle *b, str path);
void bundle_digest(const struct bundle *b, uint8_t out[32]); /* of a mapped one */

#endif
