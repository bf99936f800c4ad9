/*
 * The messages of grpc.health.v1 (grpc_health.h).
 *
 *    HealthCheckRequest { string service = 1; }   HealthCheckResponse { ServingStatus status = 1; }
 *
 * The one difficulty: an answer may hold fields that a later version has added.  They are passed
 * over by their wire type, and of a field that comes twice the last one counts, as protobuf says.
 */
#include "http/grpc_health.h"

#define PREFIX         5 /* of a message in gRPC: is it compressed, and its length in 4 bytes */
#define FIELD_1_VARINT 0x08
#define FIELD_1_BYTES  0x0a

enum wire { WIRE_VARINT, WIRE_64, WIRE_BYTES, WIRE_32 = 5 };

/* Takes a varint off the front.  false: it is cut, or longer than one may be. */
static bool take_varint(str *s, uint64_t *out)
{
        uint64_t v = 0;

        for (size_t i = 0; i < s->n && i < 10; i++) {
                unsigned char c = (unsigned char)s->p[i];
                v |= (uint64_t)(c & 0x7f) << (7 * i);
                if (c & 0x80)
                        continue;
                *s = str_from(*s, i + 1);
                *out = v;
                return true;
        }
        return false;
}

static bool skip(str *s, uint64_t wire)
{
        uint64_t n;

        switch (wire) {
        case WIRE_VARINT:
                return take_varint(s, &n);
        case WIRE_64:
                n = 8;
                break;
        case WIRE_32:
                n = 4;
                break;
        case WIRE_BYTES:
                if (!take_varint(s, &n))
                        return false;
                break;
        default: /* groups, which nobody sends any more */
                return false;
        }
        if (n > s->n)
                return false;
        *s = str_from(*s, (size_t)n);
        return true;
}

static enum grpc_health status_of(str message)
{
        uint64_t tag, status = GRPC_HEALTH_UNKNOWN;

        while (message.n > 0) {
                if (!take_varint(&message, &tag) || tag >> 3 == 0 || tag > UINT32_MAX)
                        return GRPC_HEALTH_BROKEN;
                if (tag == FIELD_1_VARINT) {
                        if (!take_varint(&message, &status))
                                return GRPC_HEALTH_BROKEN;
                } else if (!skip(&message, tag & 7)) {
                        return GRPC_HEALTH_BROKEN;
                }
        }
        return status <= GRPC_HEALTH_SERVICE_UNKNOWN ? (enum grpc_health)status
                                                     : GRPC_HEALTH_UNKNOWN;
}

enum grpc_health grpc_health_answer(str body)
{
        const unsigned char *p = (const unsigned char *)body.p;
        uint32_t n;

        if (body.n < PREFIX || p[0] != 0)
                return GRPC_HEALTH_BROKEN;
        n = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
        return n == body.n - PREFIX ? status_of(str_from(body, PREFIX)) : GRPC_HEALTH_BROKEN;
}

static size_t put_varint(char out[10], size_t v)
{
        size_t n = 0;

        for (; v > 0x7f; v >>= 7)
                out[n++] = (char)(0x80 | (v & 0x7f));
        out[n++] = (char)v;
        return n;
}

void grpc_health_ask(struct buf *out, str service)
{
        char head[PREFIX + 11] = {0};
        size_t n = PREFIX, message;

        if (service.n > 0) {
                head[n++] = FIELD_1_BYTES;
                n += put_varint(head + n, service.n);
        }
        message = n - PREFIX + service.n;
        for (int i = 0; i < 4; i++)
                head[1 + i] = (char)(message >> (24 - 8 * i));
        buf_put(out, head, n);
        if (service.n > 0)
                buf_puts(out, service);
}

const char *grpc_health_name(enum grpc_health h)
{
        switch (h) {
        case GRPC_HEALTH_BROKEN:
                return "BROKEN";
        case GRPC_HEALTH_UNKNOWN:
                return "UNKNOWN";
        case GRPC_HEALTH_SERVING:
                return "SERVING";
        case GRPC_HEALTH_NOT_SERVING:
                return "NOT_SERVING";
        case GRPC_HEALTH_SERVICE_UNKNOWN:
                return "SERVICE_UNKNOWN";
        }
        return "?";
}
