/*
 * The HTTP/1 parser (RFC 9112).
 *
 * Heads are gone through twice: memchr finds the lines while they arrive, then one pass over the
 * complete head checks every byte against field_chars and cuts the slices.  Framing is decided at
 * the end, from what both Content-Length and Transfer-Encoding said.
 */
#include "http/h1_parse.h"

#include "base/check.h"

#include "http/field.h"

#define LENGTH_MAX   ((uint64_t)INT64_MAX)
#define EXT_MAX      (16 * KIB) /* of chunk extensions that no data excuses */
#define CHUNK_EXCUSE 16         /* bytes of framing that any chunk may have */

static inline bool is_char(char c, unsigned class)
{
        return field_chars[(unsigned char)c] & class;
}

/* ---------------------------------------------------------------- where a head ends */

/* The limit that text [line_start..end) of the line, in a head of `total` bytes, breaks first. */
static enum reason over_limit(const struct h1_scan *s, size_t end, size_t total,
                              const struct h1_limits *lim, uint64_t *measured)
{
        bool start = s->kind != H1_TRAILER && s->lines == 0;
        size_t line_stop = s->line_start + (size_t)lim->line_max;
        size_t head_stop = s->skip + (size_t)lim->head_max;
        if (end > line_stop && line_stop <= head_stop) {
                *measured = end - s->line_start;
                return start ? REASON_HEADER_LINE : REASON_FIELD_LINE;
        }
        if (total > head_stop) {
                *measured = total - s->skip;
                return REASON_HEADER_MAX;
        }
        return REASON_NONE;
}

ptrdiff_t h1_head_end(struct h1_scan *s, str in, const struct h1_limits *lim, enum reason *why,
                      uint64_t *measured)
{
        enum reason r;
        for (;;) {
                const char *lf = s->pos < in.n ? memchr(in.p + s->pos, '\n', in.n - s->pos) : NULL;
                size_t end = lf ? (size_t)(lf - in.p) : in.n;
                bool cr = end > s->line_start && in.p[end - 1] == '\r';
                size_t text = end - cr;
                r = over_limit(s, text, lf ? end + 1 : end, lim, measured);
                if (r != REASON_NONE)
                        break;
                if (!lf) {
                        s->pos = (uint32_t)in.n;
                        return 0;
                }
                bool start = s->kind != H1_TRAILER && s->lines == 0;
                r = s->kind == H1_TRAILER ? REASON_BAD_TRAILER
                    : start               ? REASON_BAD_REQUEST_LINE
                                          : REASON_BAD_FIELD;
                if (!cr)
                        break;
                s->pos = (uint32_t)end + 1;
                if (text == s->line_start) {
                        if (!start)
                                return (ptrdiff_t)s->pos;
                        if (s->kind == H1_RESPONSE || s->skip)
                                break;
                        s->skip = s->line_start = s->pos;
                        continue;
                }
                s->line_start = s->pos;
                if (!start && s->lines + (s->kind == H1_TRAILER) > lim->fields_max) {
                        *measured = s->lines + (s->kind == H1_TRAILER);
                        r = REASON_HEADER_FIELDS;
                        break;
                }
                s->lines++;
        }
        *why = r;
        return -1;
}

/* ---------------------------------------------------------------- fields */

/* What the fields of one head said about it, gathered while they are read. */
struct findings {
        unsigned hosts, lengths, codings, upgrades, expects;
        bool close, keep, upgrading;
};

static bool note_option(struct findings *w, str e)
{
        if (str_ieq(e, STR("close")))
                return w->close = true;
        if (str_ieq(e, STR("keep-alive")))
                return w->keep = true;
        if (str_ieq(e, STR("upgrade")))
                return w->upgrading = true;
        return false;
}

static void note_connection(struct findings *w, str list)
{
        if (LIKELY(note_option(w, list))) /* usually there is one */
                return;
        for (str e; field_list_next(&list, &e);)
                note_option(w, e);
}

static void note_field(struct findings *w, const struct field *f)
{
        switch (f->id) {
        case FIELD_HOST:
                w->hosts++;
                break;
        case FIELD_CONTENT_LENGTH:
                w->lengths++;
                break;
        case FIELD_TRANSFER_ENCODING:
                w->codings++;
                break;
        case FIELD_UPGRADE:
                w->upgrades++;
                break;
        case FIELD_EXPECT:
                w->expects++;
                break;
        case FIELD_CONNECTION:
                note_connection(w, f->value);
                break;
        }
}

/* Reads field lines from head[i..) to the empty line. */
static enum reason parse_fields(struct arena *a, str head, size_t i, struct fields *fs,
                                struct findings *w)
{
        const char *p = head.p;
        while (i + 2 <= head.n && p[i] != '\r') {
                size_t name = i;
                while (i < head.n && is_char(p[i], FIELD_C_TOKEN))
                        i++;
                if (i == name || i == head.n || p[i] != ':')
                        return REASON_BAD_FIELD;
                size_t name_end = i++;
                while (i < head.n && (p[i] == ' ' || p[i] == '\t'))
                        i++;
                size_t value = i;
                i = field_text_end(head, i);
                if (i + 2 > head.n || p[i] != '\r' || p[i + 1] != '\n')
                        return REASON_BAD_FIELD;
                size_t end = i;
                while (end > value && (p[end - 1] == ' ' || p[end - 1] == '\t'))
                        end--;
                i += 2;
                str n = str_of(p + name, name_end - name);
                enum field_id id = field_id_of(n);
                struct field *f = fields_add(a, fs, id, n, str_of(p + value, end - value));
                if (!f)
                        return REASON_HEADER_MAX;
                if (id != FIELD_OTHER)
                        note_field(w, f);
        }
        if (i + 2 != head.n || p[i] != '\r' || p[i + 1] != '\n')
                return REASON_BAD_FIELD;
        return REASON_NONE;
}

/* ---------------------------------------------------------------- requests */

bool h1_authority_ok(str a)
{
        size_t i = 0;
        if (a.n > 0 && a.p[0] == '[') {
                bool colon = false;
                for (i = 1;
                     i < a.n && (is_char(a.p[i], FIELD_C_HEX) || a.p[i] == ':' || a.p[i] == '.');
                     i++)
                        colon |= a.p[i] == ':';
                if (i == a.n || a.p[i] != ']' || !colon)
                        return false;
                i++;
        } else {
                while (i < a.n && is_char(a.p[i], FIELD_C_HOST))
                        i++;
                if (i == 0)
                        return false;
        }
        if (i == a.n)
                return true;
        uint64_t port;
        return a.p[i] == ':' && (i + 1 == a.n || str_u64(str_from(a, i + 1), 65535, &port));
}

/* "HTTP/1.1" and its kin at p, 8 bytes.  10, 11, or 0 with *why. */
static uint8_t parse_version(const char *p, enum reason malformed, enum reason *why)
{
        *why = malformed;
        if (memcmp(p, "HTTP/", 5) != 0 || p[6] != '.' || p[5] < '0' || p[5] > '9' || p[7] < '0' ||
            p[7] > '9')
                return 0;
        if (p[5] != '1') {
                *why = REASON_VERSION;
                return 0;
        }
        return p[7] == '0' ? 10 : 11; /* 1.2 and later are treated as 1.1 (RFC 9110 2.5) */
}

/* Method SP target SP version CRLF; *next is the index after it. */
static enum reason parse_request_line(str head, struct msg *m, size_t *next)
{
        const char *p = head.p;
        size_t i = 0;
        while (i < head.n && is_char(p[i], FIELD_C_TOKEN))
                i++;
        if (i == 0 || i == head.n || p[i] != ' ')
                return REASON_BAD_REQUEST_LINE;
        m->method_text = str_of(p, i);
        m->method = method_of(m->method_text);
        size_t target = ++i;
        while (i < head.n && is_char(p[i], FIELD_C_TARGET))
                i++;
        if (i < head.n && p[i] == '#')
                return REASON_BAD_TARGET;
        if (i == target || i == head.n || p[i] != ' ')
                return REASON_BAD_REQUEST_LINE;
        m->target = str_of(p + target, i - target);
        enum reason why;
        if (head.n - i < 11 || p[i + 9] != '\r' || p[i + 10] != '\n')
                return REASON_BAD_REQUEST_LINE;
        m->version = parse_version(p + i + 1, REASON_BAD_REQUEST_LINE, &why);
        *next = i + 11;
        return m->version ? REASON_NONE : why;
}

/* Brings the absolute form into origin form: authority and target. */
static enum reason cut_absolute(struct arena *a, struct msg *m)
{
        str t = m->target;
        size_t scheme = str_istarts(t, STR("http://"))    ? 7
                        : str_istarts(t, STR("https://")) ? 8
                                                          : 0;
        if (!scheme)
                return REASON_BAD_TARGET;
        str rest = str_from(t, scheme);
        size_t i = 0;
        while (i < rest.n && rest.p[i] != '/' && rest.p[i] != '?')
                i++;
        str authority = str_head(rest, i), path = str_from(rest, i);
        if (!h1_authority_ok(authority))
                return REASON_BAD_TARGET;
        if (path.n == 0) {
                path = m->method == METHOD_OPTIONS ? STR("*") : STR("/");
        } else if (path.p[0] == '?') {
                const str parts[] = {STR("/"), path};
                path = arena_cat(a, parts, COUNT(parts));
                if (!path.p)
                        return REASON_HEADER_MAX;
        }
        m->authority = authority;
        m->target = path;
        return REASON_NONE;
}

static enum reason parse_target(struct arena *a, struct msg *m)
{
        if (m->method == METHOD_CONNECT)
                return REASON_METHOD;
        if (LIKELY(m->target.p[0] == '/'))
                return REASON_NONE;
        if (str_eq(m->target, STR("*")))
                return m->method == METHOD_OPTIONS ? REASON_NONE : REASON_BAD_TARGET;
        return cut_absolute(a, m);
}

/* Host and the target's authority: one of them counts, and the field says the same. */
static enum reason settle_host(struct msg *m, const struct findings *w)
{
        if (w->hosts > 1 || (w->hosts == 0 && m->version >= 11))
                return REASON_BAD_HOST;
        struct field *host = w->hosts ? fields_get(&m->fields, FIELD_HOST) : NULL;
        bool absolute = m->authority.p != NULL;
        if (host && !h1_authority_ok(host->value) && !(absolute && host->value.n == 0))
                return REASON_BAD_HOST;
        if (absolute && host)
                host->value = m->authority;
        else if (host)
                m->authority = host->value;
        return REASON_NONE;
}

/* One Content-Length of digits.  Repetition is refused even when the values agree. */
static bool parse_length(const struct msg *m, const struct findings *w, uint64_t *out)
{
        return w->lengths == 1 &&
               str_u64(fields_get(&m->fields, FIELD_CONTENT_LENGTH)->value, LENGTH_MAX, out);
}

/* RFC 9112 6.1.  NONE: the body is chunked.  TRANSFER_CODING: well-formed, but something else too.
 */
static enum reason check_coding(const struct msg *m, const struct findings *w)
{
        if (m->version < 11 || w->lengths || w->codings > 1)
                return REASON_BAD_FRAMING;
        str list = fields_get(&m->fields, FIELD_TRANSFER_ENCODING)->value, e, last = STR_NONE;
        if (LIKELY(str_ieq(list, STR("chunked"))))
                return REASON_NONE;
        unsigned codings = 0, chunked = 0;
        for (; field_list_next(&list, &e); last = e, codings++)
                chunked += str_ieq(e, STR("chunked"));
        return codings > 1 && chunked == 1 && str_ieq(last, STR("chunked")) ? REASON_TRANSFER_CODING
                                                                            : REASON_BAD_FRAMING;
}

/* h2c would carry requests past us, and its Upgrade is obsolete (RFC 9113 3.1): never handed on. */
static bool upgrade_passes(str protocol)
{
        return !str_ieq(protocol, STR("h2c")) && !str_ieq(protocol, STR("h2"));
}

/* Sets m->upgrade to what may pass of the Upgrade fields; false: the arena is full. */
static bool settle_upgrade(struct arena *a, struct msg *m)
{
        str list = fields_join(a, &m->fields, FIELD_UPGRADE), e;
        if (!list.p || list.n == 0)
                return list.p != NULL;
        char *text = arena_alloc(a, list.n * 2), *p = text; /* each comma may gain a space */
        if (!text)
                return false;
        while (field_list_next(&list, &e)) {
                if (!upgrade_passes(e))
                        continue;
                if (p != text) {
                        memcpy(p, ", ", 2);
                        p += 2;
                }
                memcpy(p, e.p, e.n);
                p += e.n;
        }
        m->upgrade = p == text ? STR_NONE : str_of(text, (size_t)(p - text));
        return true;
}

static enum reason settle_request(struct arena *a, struct msg *m, const struct findings *w)
{
        enum reason why = settle_host(m, w);
        if (why != REASON_NONE)
                return why;
        if (w->codings) {
                why = check_coding(m, w);
                if (why != REASON_NONE)
                        return why;
                m->framing = FRAMING_CHUNKED;
        } else if (w->lengths) {
                if (!parse_length(m, w, &m->length))
                        return REASON_BAD_FRAMING;
                m->framing = FRAMING_LENGTH;
        }
        m->keep_alive = !w->close && (m->version >= 11 || w->keep);
        if (w->upgrading && w->upgrades && m->version >= 11 && !settle_upgrade(a, m))
                return REASON_HEADER_MAX;
        if (w->expects && m->version >= 11) {
                if (w->expects > 1 ||
                    !str_ieq(fields_get(&m->fields, FIELD_EXPECT)->value, STR("100-continue")))
                        return REASON_EXPECTATION;
                m->expect_continue = m->framing != FRAMING_NONE && m->length + w->codings > 0;
        }
        return REASON_NONE;
}

enum reason h1_parse_request(struct arena *a, str head, struct msg *m)
{
        struct findings w = {0};
        size_t i = 0;
        enum reason why = parse_request_line(head, m, &i);
        if (why == REASON_NONE)
                why = parse_target(a, m);
        enum reason fields = i ? parse_fields(a, head, i, &m->fields, &w) : REASON_NONE;
        if (why == REASON_NONE)
                why = fields;
        return why == REASON_NONE ? settle_request(a, m, &w) : why;
}

void h1_peek_request(struct arena *a, str head, struct msg *m)
{
        size_t i;
        if (parse_request_line(head, m, &i) == REASON_NONE)
                (void)!parse_target(a, m);
}

/* ---------------------------------------------------------------- responses */

/* Version SP status [SP phrase] CRLF: a missing space before an empty phrase is common, and
 * harmless because the line is written anew. */
static bool parse_status_line(str head, struct msg *m, size_t *next)
{
        const char *p = head.p;
        enum reason why;
        if (head.n < 14)
                return false;
        m->version = parse_version(p, REASON_UPSTREAM_HEAD, &why);
        if (!m->version || p[7] > '1' || p[8] != ' ' || p[9] < '1' || p[9] > '9')
                return false;
        for (int i = 10; i < 12; i++)
                if (p[i] < '0' || p[i] > '9')
                        return false;
        m->status = (p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0');
        size_t i = 12;
        if (p[i] == ' ')
                i = field_text_end(head, ++i);
        if (head.n - i < 2 || p[i] != '\r' || p[i + 1] != '\n')
                return false;
        m->phrase = i > 13 ? str_of(p + 13, i - 13) : STR("");
        *next = i + 2;
        return true;
}

static enum reason settle_response(struct arena *a, struct msg *m, enum method method,
                                   const struct findings *w)
{
        bool interim = m->status < 200;
        if (interim && (w->codings || w->lengths))
                return REASON_UPSTREAM_FRAMING;
        if (w->codings && check_coding(m, w) != REASON_NONE)
                return REASON_UPSTREAM_FRAMING;
        if (w->lengths && !parse_length(m, w, &m->length))
                return REASON_UPSTREAM_FRAMING;
        m->keep_alive = !w->close && (m->version >= 11 || w->keep);
        if (m->status == 101) {
                m->framing = FRAMING_TUNNEL;
                if (w->upgrading && w->upgrades && !settle_upgrade(a, m))
                        return REASON_UPSTREAM_HEADER_MAX;
        } else if (interim || m->status == 204 || m->status == 304 || method == METHOD_HEAD) {
                m->framing = FRAMING_NONE;
                if (m->status == 204) /* says nothing there (RFC 9110 8.6) */
                        m->length = 0;
        } else if (w->codings) {
                m->framing = FRAMING_CHUNKED;
        } else if (w->lengths) {
                m->framing = FRAMING_LENGTH;
        } else {
                m->framing = FRAMING_CLOSE;
                m->keep_alive = false;
        }
        return REASON_NONE;
}

enum reason h1_parse_response(struct arena *a, str head, enum method method, struct msg *m)
{
        struct findings w = {0};
        size_t i;
        if (!parse_status_line(head, m, &i))
                return REASON_UPSTREAM_HEAD;
        enum reason why = parse_fields(a, head, i, &m->fields, &w);
        if (why != REASON_NONE)
                return why == REASON_HEADER_MAX ? REASON_UPSTREAM_HEADER_MAX : REASON_UPSTREAM_HEAD;
        return settle_response(a, m, method, &w);
}

/* ---------------------------------------------------------------- chunks */

enum { SIZE, BLANK, EXT, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILERS, BAD };

/* The byte after the digits of the size, or one in an extension; returns the next state. */
static int chunk_line(struct h1_chunked *c, char b)
{
        if (b == '\r' && c->state != BLANK)
                return SIZE_LF;
        if (c->state == EXT ? !is_char(b, FIELD_C_TEXT) : b != ';' && b != ' ' && b != '\t')
                return BAD;
        if (++c->ext > EXT_MAX)
                return BAD;
        return c->state == EXT || b == ';' ? EXT : BLANK;
}

/* The line is complete: what follows it. */
static int chunk_begin(struct h1_chunked *c)
{
        c->left = c->size;
        c->digits = 0;
        c->size = 0;
        c->ext -= MIN(c->ext, (uint32_t)MIN(c->left, EXT_MAX) + CHUNK_EXCUSE);
        return c->left ? DATA : TRAILERS;
}

static int chunk_step(struct h1_chunked *c, char b)
{
        switch (c->state) {
        case SIZE: {
                int v = str_hex_digit(b);
                if (v < 0)
                        return c->digits ? chunk_line(c, b) : BAD;
                if (++c->digits > 16 || c->size > LENGTH_MAX >> 4)
                        return BAD;
                c->size = c->size << 4 | (unsigned)v;
                return SIZE;
        }
        case SIZE_LF:
                return b == '\n' ? chunk_begin(c) : BAD;
        case DATA_CR:
                return b == '\r' ? DATA_LF : BAD;
        case DATA_LF:
                return b == '\n' ? SIZE : BAD;
        case BLANK:
        case EXT:
                return chunk_line(c, b);
        default:
                return BAD;
        }
}

enum h1_step h1_chunked_next(struct h1_chunked *c, str in, size_t *used)
{
        size_t i = 0;
        while (c->state != DATA && c->state != TRAILERS && c->state != BAD && i < in.n)
                c->state = chunk_step(c, in.p[i++]);
        *used = i;
        switch (c->state) {
        case DATA:
                return H1_DATA;
        case TRAILERS:
                return H1_TRAILERS;
        case BAD:
                return H1_BAD;
        default:
                return H1_MORE;
        }
}

void h1_chunked_took(struct h1_chunked *c, uint64_t n)
{
        CHECK(c->state == DATA && n <= c->left);
        c->left -= n;
        if (c->left == 0)
                c->state = DATA_CR;
}

enum reason h1_parse_trailers(struct arena *a, str section, struct fields *out)
{
        struct findings w = {0};
        struct fields fs = {0};
        if (parse_fields(a, section, 0, &fs, &w) != REASON_NONE)
                return REASON_BAD_TRAILER;
        FIELDS_EACH(f, &fs)
        {
                unsigned flags = field_flags_of(f->id);
                if (flags & FIELD_F_FRAMING)
                        return REASON_BAD_TRAILER;
                if (flags & FIELD_F_NOTRAILER)
                        f->flags |= FIELD_DELETED;
        }
        *out = fs;
        return REASON_NONE;
}
