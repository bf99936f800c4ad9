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

/* The arena makes room; name and value are not copied.  The new field, or NULL when the arena is
 * full. */
struct field *fields_add(struct arena *a, struct fields *f, enum field_id id, str name, str value);
/* First live field of that id / name, or NULL.  Use _get for well-known ones. */
struct field *fields_get(const struct fields *f, enum field_id id);
struct field *fields_find(const struct fields *f, str name);
unsigned fields_count(const struct fields *f, str name);
unsigned fields_del_id(struct fields *f, enum field_id id); /* how many there were */
unsigned fields_del(struct fields *f, str name);
/* Replaces the first and deletes the others, or adds.  NULL: the arena is full, nothing changed. */
struct field *fields_set(struct arena *a, struct fields *f, enum field_id id, str name, str value);
/* All values of the id joined with ", " (copied only when there is more than one); absent when
 * none. */
str fields_join(struct arena *a, const struct fields *f, enum field_id id);

/* Is it of that name, whose id is given?  Names that differ mostly begin alike ("x-"), so the last
 * byte is looked at first. */
static inline bool field_is(const struct field *f, enum field_id id, str name)
{
        if (f->id != id || id != FIELD_OTHER)
                return f->id == id;
        return f->name.n == name.n && name.n > 0 &&
               ((f->name.p[name.n - 1] ^ name.p[name.n - 1]) & ~0x20) == 0 &&
               str_ieq(f->name, name);
}

/* FIELDS_EACH(f, &m->fields) { ... } over live fields. */
#define FIELDS_EACH(f, fs)                                                                         \
        for (struct field *f = (fs)->v, *f##_end = f ? f + (fs)->n : f; f != f##_end; f++)         \
                if (!(f->flags & FIELD_DELETED))

#endif
