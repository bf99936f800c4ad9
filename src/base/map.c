/*
 * Hash map from byte strings to pointers.
 *
 * Entries stand in an array in the order they came; a table of indexes into it, linear probing, at
 * most half full, finds them.  The one difficulty is deleting: an entry becomes a hole, its index a
 * grave, and both are swept when the arrays are rebuilt.
 */
#include "base/map.h"

#include "base/check.h"
#include "base/siphash.h"

#include <stdlib.h>
#include <sys/random.h>

#define EMPTY UINT32_MAX
#define GRAVE (UINT32_MAX - 1)
#define FIRST 8u

/* key.p == NULL: a hole.  Owns the copy of the key. */
struct entry {
        str key;
        uint64_t hash;
        void *value;
};

/* Invariant: each entry that is no hole has exactly one cell with its index; used counts cells that
 * are not EMPTY, 2 * used <= cells; n entries in use or holes; live are no holes. */
struct map {
        struct entry *entries;
        uint32_t *index;
        uint32_t n, live, cells, used;
};

static uint64_t process_key[2];

/* Before main, so that no reader of a map has to ask; workers inherit it. */
__attribute__((constructor)) static void make_process_key(void)
{
        if (getrandom(process_key, sizeof(process_key), 0) != sizeof(process_key))
                abort();
}

uint64_t map_hash(str s)
{
        return siphash(1, 3, process_key[0], process_key[1], s);
}

static void *checked(void *p)
{
        CHECK(p != NULL);
        return p;
}

static void place(struct map *m, uint32_t entry)
{
        uint32_t i = (uint32_t)m->entries[entry].hash & (m->cells - 1);

        while (m->index[i] != EMPTY)
                i = (i + 1) & (m->cells - 1);
        m->index[i] = entry;
        m->used++;
}

/* Room for twice the live entries; sweeps holes and graves.  cells is a power of two. */
static void rebuild(struct map *m)
{
        struct entry *old = m->entries;
        uint32_t n = m->n, cells = FIRST;

        CHECK(m->live < UINT32_MAX / 8);
        while (cells < m->live * 4 + 4)
                cells *= 2;
        free(m->index);
        m->index = checked(malloc(cells * sizeof(*m->index)));
        memset(m->index, 0xff, cells * sizeof(*m->index));
        m->entries = checked(malloc(cells / 2 * sizeof(*m->entries)));
        m->cells = cells;
        m->n = m->used = 0;
        for (uint32_t i = 0; i < n; i++) {
                if (!old[i].key.p)
                        continue;
                m->entries[m->n] = old[i];
                place(m, m->n++);
        }
        free(old);
}

struct map *map_new(void)
{
        struct map *m = checked(calloc(1, sizeof(*m)));

        rebuild(m);
        return m;
}

void map_free(struct map *m)
{
        if (!m)
                return;
        for (uint32_t i = 0; i < m->n; i++)
                free((char *)m->entries[i].key.p);
        free(m->entries);
        free(m->index);
        free(m);
}

/* The cell of the key, or NULL. */
static uint32_t *find(const struct map *m, str key, uint64_t hash)
{
        uint32_t i = (uint32_t)hash & (m->cells - 1);

        for (; m->index[i] != EMPTY; i = (i + 1) & (m->cells - 1)) {
                const struct entry *e = &m->entries[m->index[i]];
                if (m->index[i] != GRAVE && e->hash == hash && str_eq(e->key, key))
                        return &m->index[i];
        }
        return NULL;
}

void *map_get(const struct map *m, str key)
{
        uint32_t *cell = find(m, key, map_hash(key));

        return cell ? m->entries[*cell].value : NULL;
}

void *map_put(struct map *m, str key, void *value)
{
        uint64_t hash = map_hash(key);
        uint32_t *cell = find(m, key, hash);

        if (cell) {
                void *before = m->entries[*cell].value;
                m->entries[*cell].value = value;
                return before;
        }
        if ((m->used + 1) * 2 > m->cells || m->n == m->cells / 2)
                rebuild(m);
        m->entries[m->n] = (struct entry){str_of(str_dupz(key), key.n), hash, value};
        m->live++;
        place(m, m->n++);
        return NULL;
}

void *map_del(struct map *m, str key)
{
        uint32_t *cell = find(m, key, map_hash(key));
        struct entry *e;
        void *value;

        if (!cell)
                return NULL;
        e = &m->entries[*cell];
        value = e->value;
        free((char *)e->key.p);
        *e = (struct entry){STR_NONE, 0, NULL};
        *cell = GRAVE;
        m->live--;
        return value;
}

size_t map_count(const struct map *m)
{
        return m->live;
}

bool map_at(const struct map *m, size_t *cursor, str *key, void **value)
{
        size_t i = *cursor;

        while (i < m->n && !m->entries[i].key.p)
                i++;
        if (i >= m->n)
                return false;
        *cursor = i + 1;
        *key = m->entries[i].key;
        *value = m->entries[i].value;
        return true;
}
