/*
 * Memory shared by the master and all workers, and the local store that lives in it.
 *
 * The store is a set-associative table with a lock per set that names its holder, so that the
 * master can clear the locks of a dead worker; a record whose writer died is dropped.  Bounded:
 * a full set pushes out what expired, then what was least recently used.
 */
#ifndef BASE_SHM_H
#define BASE_SHM_H

#include "base/arena.h"

void *
shm_new(size_t bytes); /* anonymous, shared over fork, zeroed, lazily touched; aborts on failure */
void shm_free(void *p, size_t bytes);

struct store;
struct store *store_new(size_t bytes); /* >= 64 KiB */
void store_free(struct store *s);
#define STORE_KEY_MAX   256
#define STORE_VALUE_MAX 3072

/* Times are wall-clock-independent microseconds of CLOCK_MONOTONIC, given by the caller; ttl 0: no
 * end. */
/* false: no such record, or the arena has no room for a copy of its value. */
MUST_CHECK bool store_get(struct store *s, str key, int64_t now, struct arena *a, str *value);
/* false: key or value too large. */
bool store_set(struct store *s, str key, str value, int64_t now, int64_t ttl_us);
void store_del(struct store *s, str key);
/* fn, which must neither block nor use the store, changes a record of n bytes (aligned to 64,
 * zeroed if new, expired or of another size) while nobody else does.  false: key or n too large. */
bool store_update(struct store *s, str key, size_t n, int64_t now, int64_t ttl_us,
                  void (*fn)(void *record, void *arg), void *arg);
uint64_t store_evictions(const struct store *s); /* live records pushed out */
void store_clear_dead(struct store *s, int pid); /* master: a worker died */

#endif
