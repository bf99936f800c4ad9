/*
 * Heads as HTTP/1 bytes.
 *
 * A head is put together in one piece of memory where it fits a chunk (nearly always); what is
 * larger is appended bit by bit.  struct pen hides which.
 */
#include "http/h1_write.h"

#include "http/field.h"

/* Writes into [p, end) of the buf's reserve; invariant: what was written is not committed yet. */
struct pen {
        struct buf *out;
        char *start, *p, *end;
};

static void pen_begin(struct pen *w, struct buf *out, size_t room)
{
        room = MIN(room, BUF_CHUNK);
        w->out = out;
        w->start = w->p = buf_reserve(out, room);
        w->end = w->p + room;
}

static void pen_end(struct pen *w)
{
        buf_commit(w->out, (size_t)(w->p - w->start));
}

static COLD void pen_overflow(struct pen *w, str s)
{
        pen_end(w);
        buf_puts(w->out, s);
        pen_begin(w, w->out, BUF_CHUNK);
}

static inline void pen_put(struct pen *w, str s)
{
        if (UNLIKELY((size_t)(w->end - w->p) < s.n)) {
                pen_overflow(w, s);
                return;
        }
        memcpy(w->p, s.p, s.n);
        w->p += s.n;
}

static inline void pen_field(struct pen *w, str name, str value)
{
        if (UNLIKELY((size_t)(w->end - w->p) < name.n + value.n + 4)) {
                pen_put(w, name);
                pen_put(w, STR(": "));
                pen_put(w, value);
                pen_put(w, STR("\r\n"));
                return;
        }
        char *p = w->p;
        memcpy(p, name.p, name.n);
        p += name.n;
        memcpy(p, ": ", 2);
        p += 2;
        if (value.n)
                memcpy(p, value.p, value.n);
        p += value.n;
        memcpy(p, "\r\n", 2);
        w->p = p + 2;
}

static void pen_length(struct pen *w, uint64_t n)
{
        char digits[20];
        pen_field(w, STR("Content-Length"), str_of(digits, str_put_u64(digits, n)));
}

/* Bytes that the fields of m need at most. */
static size_t fields_size(const struct fields *fs)
{
        size_t n = 0;
        FIELDS_EACH(f, fs)
        {
                n += f->name.n + f->value.n + 4;
        }
        return n;
}

#define FIXED_ROOM                                                                                 \
        256 /* for the fields that this file writes itself, and the start line's constants */

static inline bool field_passes(const struct field *f)
{
        return f->id == FIELD_OTHER || !(field_flags_of(f->id) & (FIELD_F_HOP | FIELD_F_FRAMING));
}

static void pen_upgrade(struct pen *w, str upgrade)
{
        pen_put(w, STR("Connection: upgrade\r\n"));
        pen_field(w, STR("Upgrade"), upgrade);
}

void h1_write_request(struct buf *out, const struct msg *m, bool keep_alive)
{
        struct pen w;
        pen_begin(&w, out,
                  fields_size(&m->fields) + m->method_text.n + m->target.n + m->authority.n +
                          m->upgrade.n + FIXED_ROOM);
        pen_put(&w, m->method_text);
        pen_put(&w, STR(" "));
        pen_put(&w, m->target);
        pen_put(&w, STR(" HTTP/1.1\r\n"));
        pen_field(&w, STR("Host"), m->authority);
        FIELDS_EACH(f, &m->fields)
        {
                if (field_passes(f) && f->id != FIELD_EXPECT)
                        pen_field(&w, f->name, f->value);
        }
        if (m->framing == FRAMING_LENGTH)
                pen_length(&w, m->length);
        else if (m->framing == FRAMING_CHUNKED)
                pen_put(&w, STR("Transfer-Encoding: chunked\r\n"));
        if (m->expect_continue)
                pen_put(&w, STR("Expect: 100-continue\r\n"));
        if (m->upgrade.p)
                pen_upgrade(&w, m->upgrade);
        else if (!keep_alive)
                pen_put(&w, STR("Connection: close\r\n"));
        pen_put(&w, STR("\r\n"));
        pen_end(&w);
}

static void pen_status(struct pen *w, const struct msg *m)
{
        char line[] = "HTTP/1.1 000 ";
        line[9] = (char)('0' + m->status / 100 % 10);
        line[10] = (char)('0' + m->status / 10 % 10);
        line[11] = (char)('0' + m->status % 10);
        pen_put(w, str_of(line, sizeof(line) - 1));
        pen_put(w, m->phrase.n ? m->phrase : h1_status_phrase(m->status));
        pen_put(w, STR("\r\n"));
}

static size_t response_size(const struct msg *m)
{
        return fields_size(&m->fields) + m->phrase.n + m->upgrade.n + FIXED_ROOM;
}

/* The fields that pass; returns whether Date was among them. */
static bool pen_fields(struct pen *w, const struct fields *fs)
{
        bool date = false;
        FIELDS_EACH(f, fs)
        {
                if (field_passes(f))
                        pen_field(w, f->name, f->value);
                date |= f->id == FIELD_DATE;
        }
        return date;
}

void h1_write_response(struct buf *out, const struct msg *m, const struct h1_response_form *form)
{
        struct pen w;
        pen_begin(&w, out, response_size(m));
        pen_status(&w, m);
        if (!pen_fields(&w, &m->fields))
                pen_field(&w, STR("Date"), field_date(form->wall));
        /* The length that HEAD and 304 speak of; a 204 must not have one (RFC 9110 8.6). */
        const struct field *given = form->no_body && m->status != 204
                                            ? fields_get(&m->fields, FIELD_CONTENT_LENGTH)
                                            : NULL;
        if (form->framing == FRAMING_LENGTH)
                pen_length(&w, m->length);
        else if (form->framing == FRAMING_CHUNKED)
                pen_put(&w, STR("Transfer-Encoding: chunked\r\n"));
        else if (form->framing == FRAMING_NONE && given)
                pen_field(&w, given->name, given->value);
        else if (form->framing == FRAMING_NONE && !form->no_body && m->status != 204)
                pen_put(&w, STR("Content-Length: 0\r\n"));
        if (form->framing == FRAMING_TUNNEL)
                pen_upgrade(&w, m->upgrade);
        else if (!form->keep_alive)
                pen_put(&w, STR("Connection: close\r\n"));
        else if (form->version < 11)
                pen_put(&w, STR("Connection: keep-alive\r\n"));
        pen_put(&w, STR("\r\n"));
        pen_end(&w);
}

void h1_write_interim(struct buf *out, const struct msg *m)
{
        struct pen w;
        pen_begin(&w, out, response_size(m));
        pen_status(&w, m);
        pen_fields(&w, &m->fields);
        pen_put(&w, STR("\r\n"));
        pen_end(&w);
}

void h1_write_chunk_head(struct buf *out, uint64_t n)
{
        char text[18], *p = text + sizeof(text);
        *--p = '\n';
        *--p = '\r';
        do {
                *--p = "0123456789abcdef"[n & 15];
                n >>= 4;
        } while (n);
        buf_put(out, p, (size_t)(text + sizeof(text) - p));
}

void h1_write_last_chunk(struct buf *out, const struct fields *trailers)
{
        struct pen w;
        pen_begin(&w, out, (trailers ? fields_size(trailers) : 0) + 5);
        pen_put(&w, STR("0\r\n"));
        if (trailers)
                FIELDS_EACH(f, trailers)
                {
                        if (!(field_flags_of(f->id) & FIELD_F_NOTRAILER))
                                pen_field(&w, f->name, f->value);
                }
        pen_put(&w, STR("\r\n"));
        pen_end(&w);
}

str h1_status_phrase(int status)
{
        static const struct {
                int status;
                str phrase;
        } rows[] = {
                {200, STR_INIT("OK")},
                {100, STR_INIT("Continue")},
                {101, STR_INIT("Switching Protocols")},
                {102, STR_INIT("Processing")},
                {103, STR_INIT("Early Hints")},
                {201, STR_INIT("Created")},
                {202, STR_INIT("Accepted")},
                {203, STR_INIT("Non-Authoritative Information")},
                {204, STR_INIT("No Content")},
                {205, STR_INIT("Reset Content")},
                {206, STR_INIT("Partial Content")},
                {207, STR_INIT("Multi-Status")},
                {208, STR_INIT("Already Reported")},
                {226, STR_INIT("IM Used")},
                {300, STR_INIT("Multiple Choices")},
                {301, STR_INIT("Moved Permanently")},
                {302, STR_INIT("Found")},
                {303, STR_INIT("See Other")},
                {304, STR_INIT("Not Modified")},
                {305, STR_INIT("Use Proxy")},
                {307, STR_INIT("Temporary Redirect")},
                {308, STR_INIT("Permanent Redirect")},
                {400, STR_INIT("Bad Request")},
                {401, STR_INIT("Unauthorized")},
                {402, STR_INIT("Payment Required")},
                {403, STR_INIT("Forbidden")},
                {404, STR_INIT("Not Found")},
                {405, STR_INIT("Method Not Allowed")},
                {406, STR_INIT("Not Acceptable")},
                {407, STR_INIT("Proxy Authentication Required")},
                {408, STR_INIT("Request Timeout")},
                {409, STR_INIT("Conflict")},
                {410, STR_INIT("Gone")},
                {411, STR_INIT("Length Required")},
                {412, STR_INIT("Precondition Failed")},
                {413, STR_INIT("Content Too Large")},
                {414, STR_INIT("URI Too Long")},
                {415, STR_INIT("Unsupported Media Type")},
                {416, STR_INIT("Range Not Satisfiable")},
                {417, STR_INIT("Expectation Failed")},
                {418, STR_INIT("I'm a teapot")},
                {421, STR_INIT("Misdirected Request")},
                {425, STR_INIT("Too Early")},
                {422, STR_INIT("Unprocessable Content")},
                {423, STR_INIT("Locked")},
                {424, STR_INIT("Failed Dependency")},
                {425, STR_INIT("Too Early")},
                {426, STR_INIT("Upgrade Required")},
                {428, STR_INIT("Precondition Required")},
                {429, STR_INIT("Too Many Requests")},
                {431, STR_INIT("Request Header Fields Too Large")},
                {451, STR_INIT("Unavailable For Legal Reasons")},
                {500, STR_INIT("Internal Server Error")},
                {501, STR_INIT("Not Implemented")},
                {502, STR_INIT("Bad Gateway")},
                {503, STR_INIT("Service Unavailable")},
                {504, STR_INIT("Gateway Timeout")},
                {505, STR_INIT("HTTP Version Not Supported")},
                {506, STR_INIT("Variant Also Negotiates")},
                {507, STR_INIT("Insufficient Storage")},
                {508, STR_INIT("Loop Detected")},
                {511, STR_INIT("Network Authentication Required")},
        };
        for (size_t i = 0; i < COUNT(rows); i++)
                if (rows[i].status == status)
                        return rows[i].phrase;
        return STR("");
}
