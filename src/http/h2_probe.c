/*
 * One request over HTTP/2 (h2_probe.h).
 *
 * The one difficulty: a GET is answered by its head, a call of gRPC only by what its stream ends
 * with.  Windows are left as they are, so a body that nobody wants stops by itself, and whoever
 * asks closes the connection as soon as there is an answer.
 */
#include "http/h2_probe.h"

#include "base/check.h"
#include "http/grpc.h"
#include "http/grpc_health.h"
#include "http/h2_session.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>

struct h2_probe {
        nghttp2_session *session;
        bool call;  /* it is one of gRPC */
        bool ended; /* the stream ended well */
        bool bad;
        struct buf ask, body; /* of a call */
        struct h2_answer answer;
};

static void take_field(struct h2_answer *a, str name, str value)
{
        uint64_t n;

        if (str_eq(name, STR(":status")) && str_u64(value, 999, &n) && n >= 200)
                a->status = (int)n;
        else if (str_eq(name, STR("content-type")))
                a->is_grpc = grpc_is_type(value);
        else if (str_eq(name, STR("grpc-status")) && str_u64(value, 99, &n))
                a->grpc_status = (int)n;
        else if (str_eq(name, STR("grpc-message")))
                snprintf(a->grpc_message, sizeof(a->grpc_message), "%.*s", STR_ARG(value));
}

static int on_header(nghttp2_session *session UNUSED, const nghttp2_frame *frame UNUSED,
                     const uint8_t *name, size_t name_n, const uint8_t *value, size_t value_n,
                     uint8_t flags UNUSED, void *ctx)
{
        struct h2_probe *p = ctx;

        take_field(&p->answer, str_of(name, name_n), str_of(value, value_n));
        return 0;
}

static int on_data(nghttp2_session *session UNUSED, uint8_t flags UNUSED, int32_t id UNUSED,
                   const uint8_t *data, size_t n, void *ctx)
{
        struct h2_probe *p = ctx;

        if (p->call)
                buf_put(&p->body, data, MIN(n, H2_PROBE_BODY_MAX + 1 - p->body.n));
        return 0;
}

static int on_close(nghttp2_session *session UNUSED, int32_t id UNUSED, uint32_t code, void *ctx)
{
        struct h2_probe *p = ctx;

        p->ended = p->answer.status != 0 && code == NGHTTP2_NO_ERROR;
        p->bad = !p->ended;
        return 0;
}

static ssize_t read_ask(nghttp2_session *session UNUSED, int32_t id UNUSED, uint8_t *to,
                        size_t most, uint32_t *flags, nghttp2_data_source *source UNUSED, void *ctx)
{
        struct h2_probe *p = ctx;
        size_t n = buf_copy_out(&p->ask, 0, to, most);

        buf_drain(&p->ask, n);
        if (p->ask.n == 0)
                *flags |= NGHTTP2_DATA_FLAG_EOF;
        return (ssize_t)n;
}

static void put(nghttp2_nv *nv, str name, str value)
{
        *nv = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.p,
                           .namelen = name.n,
                           .value = (uint8_t *)(uintptr_t)value.p,
                           .valuelen = value.n};
}

static struct h2_probe *probe_new(void)
{
        struct h2_probe *p = calloc(1, sizeof(*p));
        nghttp2_session_callbacks *calls;
        const nghttp2_settings_entry no_push = {NGHTTP2_SETTINGS_ENABLE_PUSH, 0};

        CHECK(p != NULL && nghttp2_session_callbacks_new(&calls) == 0);
        p->answer.grpc_status = -1;
        nghttp2_session_callbacks_set_on_header_callback(calls, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, on_data);
        nghttp2_session_callbacks_set_on_stream_close_callback(calls, on_close);
        CHECK(nghttp2_session_client_new(&p->session, calls, p) == 0);
        nghttp2_session_callbacks_del(calls);
        CHECK(nghttp2_submit_settings(p->session, NGHTTP2_FLAG_NONE, &no_push, 1) == 0);
        return p;
}

struct h2_probe *h2_probe_new(str scheme, str authority, str path)
{
        struct h2_probe *p = probe_new();
        nghttp2_nv nv[6];

        put(&nv[0], STR(":method"), STR("GET"));
        put(&nv[1], STR(":scheme"), scheme);
        put(&nv[2], STR(":authority"), authority);
        put(&nv[3], STR(":path"), path);
        put(&nv[4], STR("user-agent"), STR("weir-health"));
        put(&nv[5], STR("accept"), STR("*/*"));
        CHECK(nghttp2_submit_request(p->session, NULL, nv, COUNT(nv), NULL, NULL) > 0);
        return p;
}

struct h2_probe *h2_probe_call(str scheme, str authority, str service, int64_t timeout)
{
        struct h2_probe *p = probe_new();
        const nghttp2_data_provider body = {.read_callback = read_ask};
        char wait[16];
        nghttp2_nv nv[8];
        int n = snprintf(wait, sizeof(wait), "%um",
                         (unsigned)MIN(MAX(timeout / MSEC, 1), 99999999)); /* 8 digits at most */

        p->call = true;
        grpc_health_ask(&p->ask, service);
        put(&nv[0], STR(":method"), STR("POST"));
        put(&nv[1], STR(":scheme"), scheme);
        put(&nv[2], STR(":authority"), authority);
        put(&nv[3], STR(":path"), GRPC_HEALTH_PATH);
        put(&nv[4], STR("te"), STR("trailers"));
        put(&nv[5], STR("content-type"), STR("application/grpc"));
        put(&nv[6], STR("user-agent"), STR("weir-health"));
        put(&nv[7], STR("grpc-timeout"), str_of(wait, (size_t)n));
        CHECK(nghttp2_submit_request(p->session, NULL, nv, COUNT(nv), &body, NULL) > 0);
        return p;
}

static bool is_there(const struct h2_probe *p)
{
        return p->call ? p->ended : p->answer.status != 0;
}

enum h2_probe_result h2_probe_step(struct h2_probe *p, struct buf *in, struct buf *out)
{
        if (!p->bad && h2_session_feed(p->session, in, in->n) != 0)
                p->bad = true;
        int error = h2_session_fill(p->session, out);
        if (is_there(p))
                return H2_PROBE_THERE;
        return p->bad || error || !nghttp2_session_want_read(p->session) ? H2_PROBE_BAD
                                                                         : H2_PROBE_MORE;
}

const struct h2_answer *h2_probe_answer(struct h2_probe *p)
{
        p->answer.body = buf_pullup(&p->body, p->body.n);
        return &p->answer;
}

void h2_probe_free(struct h2_probe *p)
{
        if (!p)
                return;
        nghttp2_session_del(p->session);
        buf_clear(&p->ask);
        buf_clear(&p->body);
        free(p);
}
