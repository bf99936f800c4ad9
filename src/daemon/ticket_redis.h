/*
 * Ticket keys that machines share through Redis.
 *
 * Time is cut into periods of `rotate`.  Each has one key, named by its beginning: whoever comes
 * first puts one there (SET NX, with an expiry), and all take what is there, one period ahead.  So
 * a key is known everywhere before the first ticket is sealed with it.
 */
#ifndef DAEMON_TICKET_REDIS_H
#define DAEMON_TICKET_REDIS_H

#include "conf/model.h"
#include "net/redis.h"
#include "net/tls.h"

/* Begins, for as long as the process lives; keys go to t, which nobody else writes. */
void ticket_redis_start(struct loop *l, const struct redis_conf *store, str prefix, int64_t rotate,
                        struct tls_tickets *t);

/* Puts the key of the period that begins at from among those of set, and says which seals at now:
 * the newest that has begun.  Of those that are older than it three stay, and what nobody dated
 * (from 0) as long as there are fewer.  Pure; key NULL: only time has passed. */
void ticket_set_merge(struct tls_ticket_set *set, int64_t from,
                      const uint8_t key[TLS_TICKET_KEY_BYTES], int64_t now);

#endif
