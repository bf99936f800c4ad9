/*
 * gRPC as far as a proxy must know it.
 *
 * The one difficulty: a gRPC client takes no HTTP status for an answer.  What weir says itself
 * (nobody is there, too many, not so) must come as a status of gRPC's, with a message in a field.
 */
#include "http/grpc.h"

#include "http/h1_write.h"
#include "http/path.h"

#define MESSAGE_MAX ((size_t)1024)

static bool is_type(str value, str type)
{
        if (!str_istarts(value, type))
                return false;
        return value.n == type.n || value.p[type.n] == '+' || value.p[type.n] == ';';
}

static bool has_type(const struct msg *req, str type)
{
        const struct field *f = fields_get(&req->fields, FIELD_CONTENT_TYPE);

        return f != NULL && is_type(f->value, type);
}

bool grpc_is_type(str type)
{
        return is_type(type, STR("application/grpc"));
}

bool grpc_is_request(const struct msg *req)
{
        return has_type(req, STR("application/grpc"));
}

bool grpc_is_web_text(str type)
{
        return is_type(type, STR("application/grpc-web-text"));
}

bool grpc_is_web_type(str type)
{
        return is_type(type, STR("application/grpc-web")) || grpc_is_web_text(type);
}

bool grpc_is_web(const struct msg *req)
{
        const struct field *f = fields_get(&req->fields, FIELD_CONTENT_TYPE);

        return f != NULL && grpc_is_web_type(f->value);
}

const char *grpc_status_name(int status)
{
        static const char *const names[] = {
                "OK",
                "CANCELLED",
                "UNKNOWN",
                "INVALID_ARGUMENT",
                "DEADLINE_EXCEEDED",
                "NOT_FOUND",
                "ALREADY_EXISTS",
                "PERMISSION_DENIED",
                "RESOURCE_EXHAUSTED",
                "FAILED_PRECONDITION",
                "ABORTED",
                "OUT_OF_RANGE",
                "UNIMPLEMENTED",
                "INTERNAL",
                "UNAVAILABLE",
                "DATA_LOSS",
                "UNAUTHENTICATED",
        };

        return status >= 0 && status < (int)COUNT(names) ? names[status] : "?";
}

/* In the trailers, else in the head. */
static const struct field *last_field(const struct msg *res, str name)
{
        const struct field *f = fields_find(&res->trailers, name);

        return f != NULL ? f : fields_find(&res->fields, name);
}

int grpc_status_in(const struct msg *res)
{
        const struct field *f = last_field(res, GRPC_STATUS);
        uint64_t n;

        return f != NULL && str_u64(f->value, 999, &n) ? (int)n : -1;
}

bool grpc_pushback(const struct msg *res, int64_t *us)
{
        const struct field *f = last_field(res, GRPC_PUSHBACK);
        uint64_t ms = 0;

        if (f != NULL && !str_u64(f->value, INT32_MAX, &ms))
                return false;
        *us = (int64_t)ms * MSEC;
        return true;
}

bool grpc_timeout(str value, int64_t *us)
{
        uint64_t n;
        int64_t unit, part = 1;

        if (value.n < 2 || value.n > 9 || !str_u64(str_head(value, value.n - 1), 99999999, &n))
                return false;
        switch (value.p[value.n - 1]) {
        case 'H':
                unit = 3600 * SEC;
                break;
        case 'M':
                unit = 60 * SEC;
                break;
        case 'S':
                unit = SEC;
                break;
        case 'm':
                unit = MSEC;
                break;
        case 'u':
                unit = 1;
                break;
        case 'n':
                unit = 1;
                part = 1000;
                break;
        default:
                return false;
        }
        *us = MAX((int64_t)n * unit / part, 1);
        return true;
}

enum grpc_status grpc_status_of(int status, enum reason why)
{
        if (why == REASON_REQUEST_TIMEOUT)
                return GRPC_DEADLINE_EXCEEDED;
        switch (status) {
        case 400:
        case 431:
                return GRPC_INTERNAL;
        case 401:
                return GRPC_UNAUTHENTICATED;
        case 403:
                return GRPC_PERMISSION_DENIED;
        case 404:
                return GRPC_UNIMPLEMENTED;
        case 413:
        case 429:
                return GRPC_RESOURCE_EXHAUSTED;
        case 502:
        case 503:
        case 504:
                return GRPC_UNAVAILABLE;
        default:
                return GRPC_UNKNOWN;
        }
}

static bool plain(unsigned char c)
{
        return c >= 0x20 && c <= 0x7e && c != '%';
}

/* The first line of a text for people, else what the status is called. */
static str message_of(struct request *r)
{
        const struct field *type = fields_get(&r->res.fields, FIELD_CONTENT_TYPE);
        str line, rest;

        if (type == NULL || !str_istarts(type->value, STR("text/plain")) || r->res_body.data.n == 0)
                return h1_status_phrase(r->res.status);
        str_cut(str_head(buf_pullup(&r->res_body.data, MESSAGE_MAX), MESSAGE_MAX), '\n', &line,
                &rest);
        return arena_dup(r->arena, str_trim(line)); /* the body goes */
}

static void set(struct request *r, str name, str value)
{
        (void)!fields_set(r->arena, &r->res.fields, FIELD_OTHER, name, value);
}

void grpc_reply(struct request *r, enum reason why)
{
        struct arena *a = r->arena;
        enum grpc_status status = grpc_status_of(r->res.status, why);
        str message = path_escape(a, message_of(r), plain);

        buf_clear(&r->res_body.data);
        r->res_body.passed = 0;
        r->res.status = 200;
        r->res.phrase = STR_NONE;
        r->res.framing = FRAMING_LENGTH;
        r->res.length = 0;
        (void)fields_del_id(&r->res.fields, FIELD_CONTENT_ENCODING);
        (void)!fields_set(a, &r->res.fields, FIELD_CONTENT_TYPE, field_name_of(FIELD_CONTENT_TYPE),
                          STR("application/grpc"));
        set(r, GRPC_STATUS, arena_printf(a, "%d", (int)status));
        set(r, GRPC_MESSAGE, message);
}
