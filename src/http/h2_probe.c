/*
 * One GET over HTTP/2 (h2_probe.h).
 *
 * Windows are left as they are, so a body that nobody wants stops by itself, and whoever asks
 * closes the connection as soon as there is a status.
 */
#include "http/h2_probe.h"

#include "base/check.h"

#include <nghttp2/nghttp2.h>
#include <stdlib.h>

struct h2_probe {
        nghttp2_session *session;
        int status;
        bool bad;
};

static int on_header(nghttp2_session *session UNUSED, const nghttp2_frame *frame UNUSED,
                     const uint8_t *name, size_t name_n, const uint8_t *value, size_t value_n,
                     uint8_t flags UNUSED, void *ctx)
{
        struct h2_probe *p = ctx;
        uint64_t status;
        if (str_eq(str_of(name, name_n), STR(":status")) &&
            str_u64(str_of(value, value_n), 999, &status) && status >= 200)
                p->status = (int)status;
        return 0;
}

static int on_close(nghttp2_session *session UNUSED, int32_t id UNUSED, uint32_t code UNUSED,
                    void *ctx)
{
        struct h2_probe *p = ctx;
        p->bad = p->status == 0;
        return 0;
}

static void put(nghttp2_nv *nv, str name, str value)
{
        *nv = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.p,
                           .namelen = name.n,
                           .value = (uint8_t *)(uintptr_t)value.p,
                           .valuelen = value.n};
}

struct h2_probe *h2_probe_new(str scheme, str authority, str path)
{
        struct h2_probe *p = calloc(1, sizeof(*p));
        nghttp2_session_callbacks *calls;
        const nghttp2_settings_entry no_push = {NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
        nghttp2_nv nv[6];
        CHECK(p != NULL && nghttp2_session_callbacks_new(&calls) == 0);
        nghttp2_session_callbacks_set_on_header_callback(calls, on_header);
        nghttp2_session_callbacks_set_on_stream_close_callback(calls, on_close);
        CHECK(nghttp2_session_client_new(&p->session, calls, p) == 0);
        nghttp2_session_callbacks_del(calls);
        put(&nv[0], STR(":method"), STR("GET"));
        put(&nv[1], STR(":scheme"), scheme);
        put(&nv[2], STR(":authority"), authority);
        put(&nv[3], STR(":path"), path);
        put(&nv[4], STR("user-agent"), STR("weir-health"));
        put(&nv[5], STR("accept"), STR("*/*"));
        CHECK(nghttp2_submit_settings(p->session, NGHTTP2_FLAG_NONE, &no_push, 1) == 0);
        CHECK(nghttp2_submit_request(p->session, NULL, nv, COUNT(nv), NULL, NULL) > 0);
        return p;
}

int h2_probe_step(struct h2_probe *p, struct buf *in, struct buf *out)
{
        const uint8_t *bytes;
        ssize_t n;
        while (in->n > 0 && !p->bad) {
                str s = buf_front(in);
                n = nghttp2_session_mem_recv(p->session, (const uint8_t *)s.p, s.n);
                if (n < 0)
                        p->bad = true;
                else
                        buf_drain(in, (size_t)n);
        }
        while ((n = nghttp2_session_mem_send(p->session, &bytes)) > 0)
                buf_put(out, bytes, (size_t)n);
        if (p->status)
                return p->status;
        return p->bad || n < 0 || !nghttp2_session_want_read(p->session) ? -1 : 0;
}

void h2_probe_free(struct h2_probe *p)
{
        if (!p)
                return;
        nghttp2_session_del(p->session);
        free(p);
}
