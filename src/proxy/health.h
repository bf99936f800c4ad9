/*
 * Active checks: the control thread asks each server by itself whether it is well, with a small
 * client of its own. Control thread only.
 */
#ifndef PROXY_HEALTH_H
#define PROXY_HEALTH_H

#include "proxy/server.h"

/* Begins, changes or (interval 0) ends the checks of s.  Copies what it needs. */
void health_configure(struct server *s, const struct upstream_conf *conf);
void health_stop(struct server *s);
/* Why the last check failed; NULL: it did not, or there are none. */
const char *health_words(const struct server *s);

#endif
