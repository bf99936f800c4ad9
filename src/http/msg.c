/*
 * Messages as slices: names to ids, and the field array.
 *
 * The one difficulty is speed: every field of every message is looked up here, so a name is told
 * by its length and one byte, and compared once.
 */
#include "http/msg.h"

#include "base/check.h"

#define FIELDS_FIRST 24 /* room of a new array: most messages, with what weir adds */

struct field_row {
        str name;
        unsigned flags;
};

static const struct field_row field_rows[FIELD_IDS] = {
        [FIELD_OTHER] = {STR_INIT(""), 0},
#define FIELD(id, name, flags) [FIELD_##id] = {STR_INIT(name), flags},
#include "http/header.tbl"
#undef FIELD
};

/* The only row that a name of this length with this (lower-case) byte can be. */
static enum field_id field_candidate(str s)
{
        const char *p = s.p;
        switch (s.n) {
        case 2:
                return FIELD_TE;
        case 3:
                return FIELD_VIA;
        case 4:
                switch (str_lower(p[0])) {
                case 'h':
                        return FIELD_HOST;
                case 'd':
                        return FIELD_DATE;
                default:
                        return FIELD_ETAG;
                }
        case 5:
                return FIELD_RANGE;
        case 6:
                switch (str_lower(p[0])) {
                case 'c':
                        return FIELD_COOKIE;
                case 's':
                        return FIELD_SERVER;
                default:
                        return FIELD_EXPECT;
                }
        case 7:
                switch (str_lower(p[0])) {
                case 't':
                        return FIELD_TRAILER;
                case 'u':
                        return FIELD_UPGRADE;
                default:
                        return FIELD_REFERER;
                }
        case 8:
                return FIELD_LOCATION;
        case 9:
                return FIELD_FORWARDED;
        case 10:
                switch (str_lower(p[0])) {
                case 'c':
                        return FIELD_CONNECTION;
                case 'u':
                        return FIELD_USER_AGENT;
                case 'k':
                        return FIELD_KEEP_ALIVE;
                case 'e':
                        return FIELD_EARLY_DATA;
                default:
                        return FIELD_SET_COOKIE;
                }
        case 11:
                return str_lower(p[0]) == 'c' ? FIELD_CLIENT_CERT : FIELD_RETRY_AFTER;
        case 12:
                switch (str_lower(p[0])) {
                case 'c':
                        return FIELD_CONTENT_TYPE;
                case 'x':
                        return FIELD_X_REQUEST_ID;
                default:
                        return FIELD_MAX_FORWARDS;
                }
        case 13:
                switch (str_lower(p[0])) {
                case 'a':
                        return FIELD_AUTHORIZATION;
                default:
                        return str_lower(p[1]) == 'a' ? FIELD_CACHE_CONTROL : FIELD_CONTENT_RANGE;
                }
        case 14:
                return str_lower(p[0]) == 'c' ? FIELD_CONTENT_LENGTH : FIELD_HTTP2_SETTINGS;
        case 15:
                return str_lower(p[0]) == 'a' ? FIELD_ACCEPT_ENCODING : FIELD_X_FORWARDED_FOR;
        case 16:
                switch (str_lower(p[0])) {
                case 'c':
                        return FIELD_CONTENT_ENCODING;
                case 'x':
                        return FIELD_X_FORWARDED_HOST;
                default:
                        return FIELD_PROXY_CONNECTION;
                }
        case 17:
                switch (str_lower(p[0])) {
                case 'c':
                        return FIELD_CLIENT_CERT_CHAIN;
                case 'x':
                        return FIELD_X_FORWARDED_PROTO;
                default:
                        return FIELD_TRANSFER_ENCODING;
                }
        case 18:
                return FIELD_PROXY_AUTHENTICATE;
        case 19:
                return FIELD_PROXY_AUTHORIZATION;
        default:
                return FIELD_OTHER;
        }
}

enum field_id field_id_of(str name)
{
        enum field_id id = field_candidate(name);
        if (id == FIELD_OTHER)
                return FIELD_OTHER;
        const char *want = field_rows[id].name.p;
        if (((want[0] ^ name.p[0]) & ~0x20) != 0)
                return FIELD_OTHER;
        /* Most senders write the canonical spelling. */
        if (LIKELY(field_rows[id].name.n == name.n && memcmp(want, name.p, name.n) == 0))
                return id;
        return str_ieq(field_rows[id].name, name) ? id : FIELD_OTHER;
}

str field_name_of(enum field_id id)
{
        return field_rows[id].name;
}

unsigned field_flags_of(enum field_id id)
{
        return field_rows[id].flags;
}

enum method method_of(str s)
{
#define IS(word, m)                                                                                \
        if (memcmp(s.p, word, sizeof(word) - 1) == 0)                                              \
        return m
        switch (s.n) {
        case 3:
                IS("GET", METHOD_GET);
                IS("PUT", METHOD_PUT);
                break;
        case 4:
                IS("POST", METHOD_POST);
                IS("HEAD", METHOD_HEAD);
                break;
        case 5:
                IS("PATCH", METHOD_PATCH);
                IS("TRACE", METHOD_TRACE);
                break;
        case 6:
                IS("DELETE", METHOD_DELETE);
                break;
        case 7:
                IS("OPTIONS", METHOD_OPTIONS);
                IS("CONNECT", METHOD_CONNECT);
                break;
        }
#undef IS
        return METHOD_OTHER;
}

bool method_safe(enum method m)
{
        return m == METHOD_GET || m == METHOD_HEAD || m == METHOD_OPTIONS || m == METHOD_TRACE;
}

bool fields_grow_(struct arena *a, struct fields *f)
{
        uint32_t cap = f->cap ? f->cap * 2 : FIELDS_FIRST;
        struct field *v = arena_alloc(a, cap * sizeof(*v));

        if (!v)
                return false;
        if (f->n)
                memcpy(v, f->v, f->n * sizeof(*v));
        f->v = v;
        f->cap = cap;
        return true;
}

struct field *fields_get(const struct fields *fs, enum field_id id)
{
        if (fields_lack(fs, id))
                return NULL;
        FIELDS_EACH(f, fs)
        {
                if (f->id == id)
                        return f;
        }
        return NULL;
}

struct field *fields_find(const struct fields *fs, str name)
{
        enum field_id id = field_id_of(name);
        if (fields_lack(fs, id))
                return NULL;
        struct field *end = fields_end(fs);
        struct field *f = fields_next(fs->v, end, id, name);
        return f != end ? f : NULL;
}

unsigned fields_count(const struct fields *fs, str name)
{
        enum field_id id = field_id_of(name);
        unsigned n = 0;
        FIELDS_EACH(f, fs)
        {
                n += field_is(f, id, name);
        }
        return n;
}

unsigned fields_del_id(struct fields *f, enum field_id id)
{
        CHECK(id != FIELD_OTHER);
        return fields_del_as(f, id, STR_NONE);
}

unsigned fields_del_as(struct fields *f, enum field_id id, str name)
{
        return fields_lack(f, id) ? 0 : fields_del_from(f->v, fields_end(f), id, name);
}

unsigned fields_del(struct fields *f, str name)
{
        return fields_del_as(f, field_id_of(name), name);
}

struct field *fields_set(struct arena *a, struct fields *fs, enum field_id id, str name, str value)
{
        if (fields_lack(fs, id))
                return fields_add(a, fs, id, name, value);
        const struct field *end = fields_end(fs);
        struct field *f = fields_next(fs->v, end, id, name);
        return f == end ? fields_add(a, fs, id, name, value)
                        : fields_replace(f, end, id, name, value);
}

str fields_join(struct arena *a, const struct fields *fs, enum field_id id)
{
        struct field *first = fields_get(fs, id);
        size_t n = 0, lines = 0;
        if (!first)
                return STR_NONE;
        FIELDS_EACH(f, fs)
        {
                if (f->id == id) {
                        n += f->value.n + 2;
                        lines++;
                }
        }
        if (lines == 1)
                return first->value;
        char *text = arena_alloc(a, n), *p = text;
        if (!text)
                return STR_NONE;
        FIELDS_EACH(g, fs)
        {
                if (g->id != id)
                        continue;
                if (p != text) {
                        *p++ = ',';
                        *p++ = ' ';
                }
                memcpy(p, g->value.p, g->value.n);
                p += g->value.n;
        }
        return str_of(text, (size_t)(p - text));
}
