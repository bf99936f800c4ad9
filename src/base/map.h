/*
 * Hash map from byte strings to pointers, insertion-ordered iteration.  Keys are copied into the
 * map.  Keyed hash (per process), so nobody outside can build collisions.
 * Built by one thread; any number of threads may read it once it is no longer changed.
 */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/str.h"

struct map;

struct map *map_new(void);
void map_free(struct map *m);                /* not the values */
void *map_get(const struct map *m, str key); /* NULL when absent */
/* Returns the value that was there before (then it is replaced), or NULL. */
void *map_put(struct map *m, str key, void *value);
void *map_del(struct map *m, str key); /* the value it had, or NULL */
size_t map_count(const struct map *m);
/* Visits in insertion order: for (size_t i = 0; map_at(m, &i, &key, &value);) — i is a cursor. */
bool map_at(const struct map *m, size_t *cursor, str *key, void **value);

uint64_t map_hash(str s); /* SipHash-1-3 with the process key */

#endif
