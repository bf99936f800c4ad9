/*
 * One HTTP message head as slices (RFC 9110): what a codec has parsed, what flow and functions
 * change, what the other codec writes.
 *
 * Fields keep the order and the case they came in.  Well-known names carry an id, so that nobody
 * compares strings on the hot path.  Slices point into the request's arena (a head is copied there
 * once, when it is complete).
 */
#ifndef HTTP_MSG_H
#define HTTP_MSG_H

#include "base/arena.h"

enum field_id {
        FIELD_OTHER = 0,
#define FIELD(id, name, flags) FIELD_##id,
#include "http/header.tbl"
#undef FIELD
        FIELD_IDS
};

enum {
        FIELD_F_HOP = 1, /* hop-by-hop: never forwarded (RFC 9110 7.6.1) */
        FIELD_F_FRAMING =
                2, /* decides framing or routing: no function sets it, nobody nominates it away */
        FIELD_F_LIST = 4, /* a comma list: several lines may be joined */
        FIELD_F_NOTRAILER = 8,
        FIELD_F_SINGLE = 16 /* one value only */
};

struct field {
        str name, value;
        uint16_t id;    /* enum field_id */
        uint16_t flags; /* FIELD_DELETED, FIELD_OWN */
};
#define FIELD_DELETED 1 /* stays in the array so that indexes hold; skipped by everybody */
#define FIELD_OWN     2 /* a function has set it: the peer's Connection cannot nominate it away */

/* Invariant: ids has the bit of each field's id (also of deleted ones), so that most of what is
 * asked for and not there is told without a look at the fields. */
struct fields {
        struct field *v;
        uint32_t n, cap;
        uint64_t ids;
};
#define FIELD_BIT(id) (UINT64_C(1) << (id))
_Static_assert(FIELD_IDS <= 64, "a bit for each id");

enum method {
        METHOD_OTHER,
        METHOD_GET,
        METHOD_HEAD,
        METHOD_POST,
        METHOD_PUT,
        METHOD_DELETE,
        METHOD_OPTIONS,
        METHOD_PATCH,
        METHOD_TRACE,
        METHOD_CONNECT
};

enum framing {
        FRAMING_NONE,    /* no body */
        FRAMING_LENGTH,  /* msg.length bytes */
        FRAMING_CHUNKED, /* delimited by the codec (h1 chunks, h2 END_STREAM) */
        FRAMING_CLOSE,   /* response until the connection closes */
        FRAMING_TUNNEL   /* after 101: raw bytes both ways */
};

struct msg {
        /* request */
        enum method method;
        str method_text;
        str target;    /* as the client wrote it, in origin form: path and query, or "*" */
        str authority; /* Host or the target's, with its port; absent in HTTP/1.0 without Host */
        str scheme;    /* "http" or "https" */
        /* response */
        int status;
        str phrase;
        /* both */
        uint8_t version; /* 10, 11, 20: what the peer spoke */
        enum framing framing;
        uint64_t length;
        struct fields fields;
        struct fields trailers;
        bool expect_continue; /* request */
        bool keep_alive;      /* the peer allows another message on this connection */
        str upgrade; /* request: protocols asked for with Connection: upgrade; 101: the one agreed;
                        absent: none */
};

enum method method_of(str text);
bool method_safe(enum method m); /* GET HEAD OPTIONS TRACE: may be sent again (RFC 9110 9.2.1) */
enum field_id field_id_of(str name); /* without case */
str field_name_of(enum field_id id); /* canonical spelling */
unsigned field_flags_of(enum field_id id);

/* First live field of that id / name, or NULL.  Use _get for well-known ones. */
struct field *fields_get(const struct fields *f, enum field_id id);
struct field *fields_find(const struct fields *f, str name);
unsigned fields_count(const struct fields *f, str name);
unsigned fields_del_id(struct fields *f, enum field_id id); /* how many there were */
unsigned fields_del(struct fields *f, str name);
/* The same, by whoever has the name's id. */
unsigned fields_del_as(struct fields *f, enum field_id id, str name);
/* Replaces the first and deletes the others, or adds.  NULL: the arena is full, nothing changed. */
struct field *fields_set(struct arena *a, struct fields *f, enum field_id id, str name, str value);
/* All values of the id joined with ", " (copied only when there is more than one); absent when
 * none. */
str fields_join(struct arena *a, const struct fields *f, enum field_id id);

/* Names that differ mostly begin alike ("x-"), so they are compared from their ends. */
static inline bool field_same_(const char *a, const char *b, size_t n)
{
        while (n > 0 && (a[n - 1] == b[n - 1] || str_lower(a[n - 1]) == str_lower(b[n - 1])))
                n--;
        return n == 0;
}

/* Is it of that name, whose id is given? */
static inline bool field_is(const struct field *f, enum field_id id, str name)
{
        if (f->id != id || id != FIELD_OTHER)
                return f->id == id;
        return f->name.n == name.n && name.n > 0 && field_same_(f->name.p, name.p, name.n);
}

/* Is there none of that id for sure? */
static inline bool fields_lack(const struct fields *fs, enum field_id id)
{
        return !(fs->ids & FIELD_BIT(id));
}

static inline struct field *fields_end(const struct fields *fs)
{
        return fs->v ? fs->v + fs->n : NULL;
}

/* The first live field from f on of that name, whose id is given; end: there is none. */
static inline struct field *fields_next(struct field *f, const struct field *end, enum field_id id,
                                        str name)
{
        if (id != FIELD_OTHER) {
                while (f != end && (f->id != id || (f->flags & FIELD_DELETED)))
                        f++;
                return f;
        }
        /* Most are told apart by their length alone. */
        while (f != end && (f->name.n != name.n || (f->flags & FIELD_DELETED) ||
                            !field_is(f, FIELD_OTHER, name)))
                f++;
        return f;
}

COLD bool fields_grow_(struct arena *a, struct fields *f);

/* Where there is room: f->n < f->cap. */
static inline struct field *fields_append(struct fields *f, enum field_id id, str name, str value)
{
        struct field *new = &f->v[f->n++];
        *new = (struct field){name, value, (uint16_t)id, 0};
        f->ids |= FIELD_BIT(id);
        return new;
}

/* The arena makes room; name and value are not copied.  The new field, or NULL when the arena is
 * full. */
static inline struct field *fields_add(struct arena *a, struct fields *f, enum field_id id,
                                       str name, str value)
{
        if (UNLIKELY(f->n == f->cap) && !fields_grow_(a, f))
                return NULL;
        return fields_append(f, id, name, value);
}

/* From f on; how many there were. */
static inline unsigned fields_del_from(struct field *f, const struct field *end, enum field_id id,
                                       str name)
{
        unsigned n = 0;
        while ((f = fields_next(f, end, id, name)) != end) {
                f->flags |= FIELD_DELETED;
                f++;
                n++;
        }
        return n;
}

/* In place of f, the first of that name, and of those behind it. */
static inline struct field *fields_replace(struct field *f, const struct field *end,
                                           enum field_id id, str name, str value)
{
        f->name = name;
        f->value = value;
        fields_del_from(f + 1, end, id, name);
        return f;
}

/* FIELDS_EACH(f, &m->fields) { ... } over live fields. */
#define FIELDS_EACH(f, fs)                                                                         \
        for (struct field *f = (fs)->v, *f##_end = f ? f + (fs)->n : f; f != f##_end; f++)         \
                if (!(f->flags & FIELD_DELETED))

#endif
