/*
 * Bytes, bodies and fields between weir and nghttp2.
 *
 * The difficulty is not to copy: nghttp2 reads from the chunks that the socket filled, writes what
 * it must into one buffer, and of a DATA frame makes only the nine bytes in front; the body's
 * chunks are moved from pipe to queue.
 */
#include "http/h2_session.h"

#include "base/check.h"

#define WORTH_MOVING (4 * KIB)
#define HEAD         9 /* bytes of a frame's head (RFC 9113 4.1) */

int h2_session_feed(nghttp2_session *ng, struct buf *in, size_t n)
{
        while (n > 0) {
                str s = str_head(buf_front(in), n);
                ssize_t took = nghttp2_session_mem_recv(ng, (const uint8_t *)s.p, s.n);
                if (took < 0)
                        return (int)took;
                CHECK((size_t)took <= s.n && took > 0);
                buf_drain(in, (size_t)took);
                n -= (size_t)took;
        }
        return 0;
}

int h2_session_fill(nghttp2_session *ng, struct buf *out)
{
        while (out->n < H2_OUT_HIGH) {
                const uint8_t *p;
                size_t had = out->n;
                ssize_t n = nghttp2_session_mem_send(ng, &p);
                if (n < 0)
                        return (int)n;
                if (n > 0)
                        buf_put(out, p, (size_t)n);
                else if (out->n == had) /* else DATA frames were put there by the callback */
                        break;
        }
        return 0;
}

size_t h2_data_length(const struct pipe *p, size_t most)
{
        size_t n = MIN(most, p->data.n), front;
        if (n < WORTH_MOVING) /* and the chunk is left alone, which may be in no cache any more */
                return n;
        front = buf_front(&p->data).n;
        return front >= WORTH_MOVING && front < n ? front : n;
}

void h2_data_put(struct buf *out, const nghttp2_frame *frame, const uint8_t *head, struct pipe *p,
                 size_t n)
{
        CHECK(frame->data.padlen == 0);
        if (n == 0) {
                buf_put(out, head, HEAD);
                return;
        }
        CHECK(n <= p->data.n);
        /* Where a whole chunk goes, its frame's head goes before it: no copy, and the two are one
         * piece for who encrypts them. */
        if (n >= WORTH_MOVING && buf_front(&p->data).n <= n && buf_prepend(&p->data, head, HEAD)) {
                buf_move(out, &p->data, HEAD + n);
        } else {
                buf_put(out, head, HEAD);
                buf_move(out, &p->data, n);
        }
}

static int64_t initial_window(nghttp2_session *ng)
{
        return nghttp2_session_get_remote_settings(ng, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE);
}

void h2_windows_begin(struct h2_windows *w, nghttp2_session *ng)
{
        *w = (struct h2_windows){.initial = initial_window(ng)};
}

void h2_windows_stream(struct h2_windows *w, nghttp2_session *ng, int32_t id)
{
        w->widest = MAX(w->widest, nghttp2_session_get_stream_remote_window_size(ng, id));
}

bool h2_windows_overflow(const struct h2_windows *w, nghttp2_session *ng)
{
        return w->widest + initial_window(ng) - w->initial > INT32_MAX;
}

str h2_name_of(enum field_id id)
{
        static _Thread_local char text[FIELD_IDS][32];
        str name = field_name_of(id);
        if (UNLIKELY(text[id][0] == '\0')) {
                CHECK(id != FIELD_OTHER && name.n <= sizeof(text[id]));
                for (size_t i = 0; i < name.n; i++)
                        text[id][i] = str_lower(name.p[i]);
        }
        return str_of(text[id], name.n);
}

static void add(struct arena *a, struct h2_fields *out, str name, str value, uint8_t flags)
{
        *VEC_ADD(a, out) = (nghttp2_nv){.name = (uint8_t *)name.p,
                                        .namelen = name.n,
                                        .value = (uint8_t *)value.p,
                                        .valuelen = value.n,
                                        .flags = flags};
}

void h2_fields_add(struct arena *a, struct h2_fields *out, str name, str value)
{
        add(a, out, name, value, NGHTTP2_NV_FLAG_NO_COPY_NAME);
}

static void pass(struct arena *a, struct h2_fields *out, const struct field *f)
{
        if (f->id == FIELD_OTHER)
                add(a, out, f->name, f->value, NGHTTP2_NV_FLAG_NONE);
        else
                h2_fields_add(a, out, h2_name_of(f->id), f->value);
}

void h2_fields_pass(struct arena *a, struct h2_fields *out, const struct fields *fs)
{
        FIELDS_EACH(f, fs)
        {
                if (f->id == FIELD_OTHER ||
                    !(field_flags_of(f->id) & (FIELD_F_HOP | FIELD_F_FRAMING)))
                        pass(a, out, f);
        }
}

void h2_fields_trailers(struct arena *a, struct h2_fields *out, const struct fields *fs)
{
        FIELDS_EACH(f, fs)
        {
                if (!(field_flags_of(f->id) & FIELD_F_NOTRAILER))
                        pass(a, out, f);
        }
}
