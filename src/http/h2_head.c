/*
 * Request heads of HTTP/2.
 *
 * The difficulty is what HTTP/1 would make of them: a request that passes here may be written to an
 * HTTP/1 server, so it keeps the rules of h1_parse.c, with the same limits and the same reasons.
 * nghttp2 has already refused upper-case names, controls, connection-specific fields, pseudo-fields
 * in wrong places, and bodies that belie content-length; what depends on meaning is checked here.
 */
#include "http/h2_head.h"

#include "base/crypto.h"
#include "http/field.h"

#define LINE_REST 12 /* " " and " HTTP/1.1\r\n" around a target */

static bool all_of(str s, unsigned class)
{
        for (size_t i = 0; i < s.n; i++)
                if (!(field_chars[(unsigned char)s.p[i]] & class))
                        return false;
        return s.n > 0;
}

static void wrong(struct h2_head *h, enum reason why, uint64_t measured)
{
        if (h->why != REASON_NONE)
                return;
        h->why = why;
        h->measured = measured;
}

/* Counts the field against the limits; false: it is not to be kept. */
static bool count(struct h2_head *h, const struct h1_limits *lim, str name, str value, bool crumb)
{
        bool pseudo = name.n > 0 && name.p[0] == ':';
        size_t line = pseudo ? value.n + LINE_REST : name.n + value.n + 4;
        h->size += name.n + value.n + 4;
        h->lines += !pseudo && !(crumb && h->cookies > 1);
        if (crumb)
                line = h->cookie_bytes;
        if (line > lim->line_max)
                wrong(h, pseudo ? REASON_HEADER_LINE : REASON_FIELD_LINE, line);
        else if (h->size > lim->head_max)
                wrong(h, REASON_HEADER_MAX, h->size);
        else if (h->lines > lim->fields_max)
                wrong(h, REASON_HEADER_FIELDS, h->lines);
        return h->why == REASON_NONE;
}

static void add_pseudo(struct h2_head *h, struct arena *a, struct msg *m, str name, str value)
{
        str *to = str_eq(name, STR(":method"))      ? &m->method_text
                  : str_eq(name, STR(":path"))      ? &m->target
                  : str_eq(name, STR(":authority")) ? &m->authority
                  : str_eq(name, STR(":scheme"))    ? &h->scheme
                  : str_eq(name, STR(":protocol"))  ? &h->protocol
                                                    : NULL;
        if (!to) {
                wrong(h, REASON_BAD_FIELD, 0);
                return;
        }
        *to = arena_dup(a, value);
        if (!to->p)
                wrong(h, REASON_HEADER_MAX, h->size);
}

static void add_field(struct h2_head *h, struct arena *a, struct fields *fs, str name, str value)
{
        enum field_id id = field_id_of(name);
        str n = id != FIELD_OTHER ? field_name_of(id) : arena_dup(a, name);
        str v = arena_dup(a, value);
        if (!n.p || !v.p || !fields_add(a, fs, id, n, v))
                wrong(h, REASON_HEADER_MAX, h->size);
}

void h2_head_add(struct h2_head *h, struct arena *a, struct msg *m, const struct h1_limits *lim,
                 str name, str value)
{
        bool crumb = str_eq(name, STR("cookie"));
        if (crumb) {
                h->cookies++;
                h->cookie_bytes += value.n + (h->cookies > 1 ? 2 : 10); /* "; " or "Cookie: \r\n" */
        }
        if (!count(h, lim, name, value, crumb))
                return;
        if (name.p[0] == ':')
                add_pseudo(h, a, m, name, value);
        else
                add_field(h, a, &m->fields, name, value);
}

void h2_trailer_add(struct h2_head *h, struct arena *a, struct fields *out,
                    const struct h1_limits *lim, str name, str value)
{
        unsigned flags = field_flags_of(field_id_of(name));
        if (flags & FIELD_F_FRAMING)
                wrong(h, REASON_BAD_TRAILER, 0);
        if (count(h, lim, name, value, false) && !(flags & FIELD_F_NOTRAILER))
                add_field(h, a, out, name, value);
}

/* ---------------------------------------------------------------- the whole */

/* Crumbs become one field again (RFC 9113 8.2.3); an empty one would leave a blank at its end. */
static bool join_cookies(struct h2_head *h, struct arena *a, struct fields *fs)
{
        if (h->cookies < 2)
                return true;
        char *text = arena_alloc(a, h->cookie_bytes), *p = text;
        if (!text)
                return false;
        FIELDS_EACH(f, fs)
        {
                if (f->id != FIELD_COOKIE || f->value.n == 0)
                        continue;
                if (p != text) {
                        memcpy(p, "; ", 2);
                        p += 2;
                }
                memcpy(p, f->value.p, f->value.n);
                p += f->value.n;
        }
        return fields_set(a, fs, FIELD_COOKIE, field_name_of(FIELD_COOKIE),
                          str_of(text, (size_t)(p - text)));
}

/* :authority counts, and Host says the same; functions find a Host whoever sent it. */
static enum reason settle_host(struct arena *a, struct msg *m)
{
        struct field *host = fields_get(&m->fields, FIELD_HOST);
        if (!m->authority.p && host)
                m->authority = host->value;
        if (!m->authority.p || !h1_authority_ok(m->authority))
                return REASON_BAD_HOST;
        if (host)
                return str_ieq(host->value, m->authority) ? REASON_NONE : REASON_BAD_HOST;
        return fields_add(a, &m->fields, FIELD_HOST, field_name_of(FIELD_HOST), m->authority)
                       ? REASON_NONE
                       : REASON_HEADER_MAX;
}

static enum reason settle_target(struct h2_head *h, struct msg *m)
{
        if (!all_of(m->method_text, FIELD_C_TOKEN))
                return REASON_BAD_REQUEST_LINE;
        m->method = method_of(m->method_text);
        if (m->method == METHOD_CONNECT && !str_eq(h->protocol, STR("websocket")))
                return REASON_METHOD;
        if (!str_ieq(h->scheme, STR("http")) && !str_ieq(h->scheme, STR("https")))
                return REASON_BAD_TARGET;
        if (!all_of(m->target, FIELD_C_TARGET))
                return REASON_BAD_TARGET;
        if (m->target.p[0] == '/')
                return REASON_NONE;
        return str_eq(m->target, STR("*")) && m->method == METHOD_OPTIONS ? REASON_NONE
                                                                          : REASON_BAD_TARGET;
}

static enum reason settle_body(struct msg *m, bool end)
{
        struct field *length = fields_get(&m->fields, FIELD_CONTENT_LENGTH);
        m->framing = end ? FRAMING_NONE : FRAMING_CHUNKED;
        if (length) {
                if (!str_u64(length->value, UINT64_MAX >> 1, &m->length))
                        return REASON_BAD_FRAMING;
                m->framing = FRAMING_LENGTH;
        }
        struct field *expect = fields_get(&m->fields, FIELD_EXPECT);
        if (expect && !str_ieq(expect->value, STR("100-continue")))
                return REASON_EXPECTATION;
        m->expect_continue = expect && !end;
        return REASON_NONE;
}

/* RFC 8441: the stream becomes a tunnel.  Further on it is what HTTP/1 has for that, a GET that
 * asks for an upgrade, with the key that HTTP/2 has no need of. */
static enum reason become_upgrade(struct arena *a, struct msg *m)
{
        unsigned char key[16];
        static const char name[] = "Sec-WebSocket-Key";
        m->method = METHOD_GET;
        m->method_text = STR("GET");
        m->framing = FRAMING_NONE;
        m->upgrade = STR("websocket");
        crypto_random(key, sizeof(key));
        str text = crypto_base64(a, str_of((const char *)key, sizeof(key)), false);
        return text.p && fields_set(a, &m->fields, FIELD_OTHER, str_z(name), text)
                       ? REASON_NONE
                       : REASON_HEADER_MAX;
}

enum reason h2_head_end(struct h2_head *h, struct arena *a, struct msg *m, bool end)
{
        enum reason why = h->why;
        m->version = 20;
        m->keep_alive = true;
        if (why == REASON_NONE)
                why = settle_target(h, m);
        if (why == REASON_NONE)
                why = settle_host(a, m);
        if (why == REASON_NONE)
                why = settle_body(m, end);
        if (why == REASON_NONE && !join_cookies(h, a, &m->fields))
                why = REASON_HEADER_MAX;
        if (why == REASON_NONE && m->method == METHOD_CONNECT)
                why = become_upgrade(a, m);
        return why;
}
