/*
 * Bundles: what was read once, kept in the order it was read, and given back to every later reader.
 *
 *   "WEIRBNDL" count   then per entry: kind state name_len value_len, name, value   (native
 * numbers: one machine, one boot)
 *
 * The difficulty: both sides must see the same world, so an absence is recorded like a presence,
 * and what a replaying source was never told does not exist.  The reader takes any bytes.
 */
#include "daemon/bundle.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/map.h"
#include "daemon/memfd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRY_FILE = 1, ENTRY_GLOB, ENTRY_ENV, ENTRY_USER };

struct entry_head {
        uint32_t kind, present, name_n, value_n;
};

struct bundle_head {
        char magic[8];
        uint64_t count;
};
static const char bundle_magic[8] = "WEIRBNDL";

/* One thing that was asked for.  present false: there is none, value says why (a file). */
struct entry {
        uint32_t kind;
        bool present;
        str name, value;
};

/*
 * Invariant: by holds every entry once, under its kind and name; entries and texts live in the
 * arena (collecting) or in map (replaying).
 */
struct bundle {
        struct source source; /* first: a source is cast to its bundle */
        bool replay;
        struct arena *arena;
        struct map *by;
        str map;
};

static struct bundle *bundle_of(struct source *s)
{
        return CONTAINER_OF(s, struct bundle, source);
}

/* Absolute paths have no NUL, and neither has what a configuration can name: printing loses
 * nothing. */
static str entry_key(struct bundle *b, uint32_t kind, str name)
{
        return arena_printf(b->arena, "%c%.*s", (char)('0' + kind), STR_ARG(name));
}

static struct entry *entry_find(struct bundle *b, uint32_t kind, str name)
{
        return map_get(b->by, entry_key(b, kind, name));
}

static struct entry *entry_add(struct bundle *b, uint32_t kind, bool present, str name, str value)
{
        struct entry *e = ARENA_NEW(b->arena, struct entry);

        *e = (struct entry){kind, present, name, value};
        map_put(b->by, entry_key(b, kind, name), e);
        return e;
}

static struct entry *entry_record(struct bundle *b, uint32_t kind, bool present, str name,
                                  str value)
{
        return entry_add(b, kind, present, arena_dup(b->arena, name.p ? name : STR("")),
                         arena_dup(b->arena, value.p ? value : STR("")));
}

/* ------------------------------------------------------------------ the source */

static bool bundle_file(struct source *s, str path, struct arena *a, str *content, str *error)
{
        struct bundle *b = bundle_of(s);
        struct entry *e = entry_find(b, ENTRY_FILE, path);

        if (!e && !b->replay) {
                str text = STR_NONE, why = STR_NONE;
                bool there = source_system()->file(source_system(), path, b->arena, &text, &why);
                e = entry_add(b, ENTRY_FILE, there, arena_dup(b->arena, path), there ? text : why);
        }
        if (!e || !e->present) {
                *error = e ? arena_dup(a, e->value) : STR("not in the bundle");
                return false;
        }
        *content = arena_dup(a, e->value);
        return true;
}

static bool bundle_glob(struct source *s, str pattern, struct arena *a, str **paths, size_t *n)
{
        struct bundle *b = bundle_of(s);
        struct entry *e = entry_find(b, ENTRY_GLOB, pattern);
        VEC(str) out = {0};
        str rest;

        if (!e && !b->replay) {
                str *found = NULL;
                size_t count = 0;
                bool ok = source_system()->glob(source_system(), pattern, b->arena, &found, &count);
                str text = STR("");
                for (size_t i = 0; ok && i < count; i++) {
                        str parts[] = {text, found[i], str_of("\0", 1)};
                        text = arena_cat(b->arena, parts, COUNT(parts));
                }
                e = entry_record(b, ENTRY_GLOB, ok, pattern, text);
        }
        if (!e || !e->present)
                return false;
        for (rest = arena_dup(a, e->value); rest.n > 0;) {
                str one;
                str_cut(rest, '\0', &one, &rest);
                *VEC_ADD(a, &out) = one;
        }
        *paths = out.v;
        *n = out.n;
        return true;
}

static bool bundle_env(struct source *s, str name, str *value)
{
        struct bundle *b = bundle_of(s);
        struct entry *e = entry_find(b, ENTRY_ENV, name);

        if (!e && !b->replay) {
                str v = STR_NONE;
                bool set = source_system()->env(source_system(), name, &v);
                e = entry_record(b, ENTRY_ENV, set, name, v);
        }
        if (!e || !e->present)
                return false;
        *value = e->value;
        return true;
}

static bool bundle_user(struct source *s, str user, str group, uint32_t *uid, uint32_t *gid)
{
        struct bundle *b = bundle_of(s);
        str name = arena_printf(b->arena, "%.*s %.*s", STR_ARG(user), STR_ARG(group));
        struct entry *e = entry_find(b, ENTRY_USER, name);
        uint32_t ids[2] = {0, 0};

        if (!e && !b->replay) {
                bool known = source_system()->user(source_system(), user, group, &ids[0], &ids[1]);
                e = entry_record(b, ENTRY_USER, known, name, str_of(ids, sizeof(ids)));
        }
        if (!e || !e->present || e->value.n != sizeof(ids))
                return false;
        memcpy(ids, e->value.p, sizeof(ids));
        *uid = ids[0];
        *gid = ids[1];
        return true;
}

/* ------------------------------------------------------------------ making and reading */

static struct bundle *bundle_new(bool replay)
{
        struct bundle *b = calloc(1, sizeof(*b));

        CHECK(b);
        b->source = (struct source){bundle_file, bundle_glob, bundle_env, bundle_user};
        b->replay = replay;
        b->arena = arena_new(0);
        b->by = map_new();
        return b;
}

struct bundle *bundle_collect(void)
{
        return bundle_new(false);
}

struct source *bundle_source(struct bundle *b)
{
        return &b->source;
}

void bundle_put_file(struct bundle *b, str path, str content)
{
        struct entry *e = entry_find(b, ENTRY_FILE, path);

        if (!e)
                e = entry_record(b, ENTRY_FILE, true, path, STR_NONE);
        e->present = true;
        e->value = arena_dup(b->arena, content);
}

int bundle_seal(struct bundle *b)
{
        size_t n = map_count(b->by), at = 0, cursor = 0;
        struct bundle_head head = {.count = n};
        struct entry_head *heads = ARENA_ARRAY(b->arena, struct entry_head, n + 1);
        str *parts = ARENA_ARRAY(b->arena, str, 1 + 3 * n), key;
        void *value;

        memcpy(head.magic, bundle_magic, sizeof(head.magic));
        parts[at++] = str_of(&head, sizeof(head));
        for (size_t i = 0; map_at(b->by, &cursor, &key, &value); i++) {
                const struct entry *e = value;
                if (e->value.n > UINT32_MAX || e->name.n > UINT32_MAX) {
                        errno = EFBIG;
                        return -1;
                }
                heads[i] = (struct entry_head){e->kind, e->present, (uint32_t)e->name.n,
                                               (uint32_t)e->value.n};
                parts[at++] = str_of(&heads[i], sizeof(heads[i]));
                parts[at++] = e->name;
                parts[at++] = e->value;
        }
        return memfd_make("weir-bundle", parts, at);
}

static bool take(str *rest, size_t n, str *out)
{
        if (rest->n < n)
                return false;
        *out = str_head(*rest, n);
        *rest = str_from(*rest, n);
        return true;
}

/* Fills b from bytes; false: they are not a bundle.  Pure but for memory. */
static bool bundle_read(struct bundle *b, str bytes)
{
        struct bundle_head head;
        str part;

        if (!take(&bytes, sizeof(head), &part))
                return false;
        memcpy(&head, part.p, sizeof(head));
        if (memcmp(head.magic, bundle_magic, sizeof(head.magic)) != 0 ||
            head.count > bytes.n / sizeof(struct entry_head))
                return false;
        for (uint64_t i = 0; i < head.count; i++) {
                struct entry_head h;
                str name, value;
                if (!take(&bytes, sizeof(h), &part))
                        return false;
                memcpy(&h, part.p, sizeof(h));
                if (h.kind < ENTRY_FILE || h.kind > ENTRY_USER || h.present > 1 ||
                    !take(&bytes, h.name_n, &name) || !take(&bytes, h.value_n, &value) ||
                    entry_find(b, h.kind, name))
                        return false;
                entry_add(b, h.kind, h.present, name, value);
        }
        return bytes.n == 0;
}

struct bundle *bundle_map(int fd)
{
        str bytes = memfd_map(fd);
        struct bundle *b;

        if (!bytes.p)
                return NULL;
        b = bundle_new(true);
        b->map = bytes;
        if (bundle_read(b, bytes))
                return b;
        bundle_free(b);
        return NULL;
}

void bundle_free(struct bundle *b)
{
        if (!b)
                return;
        map_free(b->by);
        arena_free(b->arena);
        memfd_unmap(b->map);
        free(b);
}

bool bundle_same_but(struct bundle *a, struct bundle *b, str path)
{
        size_t cursor = 0;
        void *value;
        str key;

        if (map_count(a->by) != map_count(b->by))
                return false;
        while (map_at(a->by, &cursor, &key, &value)) {
                const struct entry *x = value, *y = map_get(b->by, key);
                if (!y || x->present != y->present)
                        return false;
                if (!str_eq(x->value, y->value) &&
                    !(x->kind == ENTRY_FILE && str_eq(x->name, path)))
                        return false;
        }
        return true;
}

void bundle_digest(const struct bundle *b, uint8_t out[32])
{
        crypto_sha256(b->map.p ? b->map : STR(""), out);
}
