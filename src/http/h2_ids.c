/*
 * Which streams a client may still send on.
 *
 * nghttp2 forgets a stream that has ended and ignores what comes for it.  The difficulty is that
 * this is right where the server has ended it, for the client may not know yet, and wrong where the
 * client has itself, or has never opened it.  So the fate of the latest streams is kept, in two
 * bits each; what comes for older ones is left to nghttp2, as all that concerns idle streams is.
 */
#include "http/h2_ids.h"

#define KEPT 64

static void open_next(struct h2_ids *ids, int32_t id)
{
        int32_t step = (id - ids->last) / 2;
        ids->opened = (step < KEPT ? ids->opened << step : 0) | 1;
        ids->open = (step < KEPT ? ids->open << step : 0) | 1;
        ids->last = id;
}

/* NGHTTP2_NO_ERROR, or what is wrong with the frame. */
static uint32_t judge(struct h2_ids *ids, const nghttp2_frame_hd *hd)
{
        bool message = hd->type == NGHTTP2_HEADERS || hd->type == NGHTTP2_DATA;
        int32_t id = hd->stream_id;
        if (id == 0 && hd->type == NGHTTP2_PRIORITY)
                return NGHTTP2_PROTOCOL_ERROR; /* nghttp2 passes over PRIORITY unseen */
        if (id % 2 == 0)
                return NGHTTP2_NO_ERROR;
        if (hd->type == NGHTTP2_HEADERS && id > ids->last)
                open_next(ids, id);
        int32_t age = (ids->last - id) / 2;
        if (id > ids->last || age >= KEPT)
                return NGHTTP2_NO_ERROR;
        uint64_t bit = UINT64_C(1) << age;
        if (message && !(ids->opened & bit))
                return NGHTTP2_PROTOCOL_ERROR;
        if (message && !(ids->open & bit))
                return NGHTTP2_STREAM_CLOSED;
        if (hd->type == NGHTTP2_RST_STREAM || (message && hd->flags & NGHTTP2_FLAG_END_STREAM))
                ids->open &= ~bit;
        return NGHTTP2_NO_ERROR;
}

size_t h2_ids_read(struct h2_ids *ids, str bytes, uint32_t *error)
{
        size_t at = 0;
        *error = NGHTTP2_NO_ERROR;
        while (at < bytes.n) {
                size_t skip = MIN(ids->left, bytes.n - at);
                size_t begin = at += skip;
                ids->left -= (uint32_t)skip;
                while (ids->n < sizeof(ids->head) && at < bytes.n)
                        ids->head[ids->n++] = (uint8_t)bytes.p[at++];
                if (ids->n < sizeof(ids->head))
                        break;
                const uint8_t *h = ids->head;
                nghttp2_frame_hd hd = {
                        .type = h[3],
                        .flags = h[4],
                        .stream_id = (h[5] & 0x7f) << 24 | h[6] << 16 | h[7] << 8 | h[8],
                };
                ids->n = 0;
                ids->left = (uint32_t)h[0] << 16 | (uint32_t)h[1] << 8 | h[2];
                *error = judge(ids, &hd);
                if (*error != NGHTTP2_NO_ERROR)
                        return begin;
        }
        return bytes.n;
}
