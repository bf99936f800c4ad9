/*
 * The bytes of Redis: commands out, replies in.  Private to net/redis*.c.
 */
#ifndef NET_REDIS_WIRE_H
#define NET_REDIS_WIRE_H

#include "base/buf.h"
#include "net/redis.h"

/* Bytes of one reply that are taken before it is complete; what is larger breaks the connection. */
#define REDIS_REPLY_MAX MIB
#define REDIS_ELEMS_MAX 16384

void redis_put_array(struct buf *out, size_t n); /* the head of a command of n words */
void redis_put_word(struct buf *out, str s);

struct redis_wire;
struct redis_wire *redis_wire_new(void);
void redis_wire_free(struct redis_wire *w);
void redis_wire_feed(struct redis_wire *w, str bytes);
/* The next whole reply, valid until the next call; NULL: none yet, or *error says what is wrong for
 * good. */
const struct redis_reply *redis_wire_next(struct redis_wire *w, const char **error);

#endif
