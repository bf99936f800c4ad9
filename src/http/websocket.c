/*
 * Frames of a WebSocket (websocket.h).
 *
 * The one difficulty: a frame may be cut anywhere, in its head too, and most bytes must not be
 * touched.  So a step says how many bytes at the front pass as they are, up to the next place where
 * something is to be done; only heads, and PONGs, are looked at byte by byte.
 */
#include "http/websocket.h"

#include "base/check.h"

enum { OPCODE_CLOSE = 8, OPCODE_PING = 9, OPCODE_PONG = 10 };

#define FINAL       0x80
#define MASKED      0x80
#define CONTROL_MAX 125 /* bytes of a control frame's payload (5.5) */

void websocket_begin(struct websocket *w, const uint8_t mark[WEBSOCKET_MARK])
{
        *w = (struct websocket){0};
        memcpy(w->mark, mark, WEBSOCKET_MARK);
}

/* Whether what has passed ends with a frame. */
static bool between(const struct websocket *w)
{
        return w->left == 0 && (w->n == 0 || w->held) && !w->closing && !w->broken;
}

/* ---------------------------------------------------------------- heads */

/* How long a head is of which n >= 2 bytes are known. */
static size_t head_size(const uint8_t *head)
{
        unsigned length = head[1] & 127;

        return 2 + (length == 126 ? 2 : length == 127 ? 8 : 0) + (head[1] & MASKED ? 4 : 0);
}

/* Of a complete head. */
static uint64_t payload_size(const uint8_t *head)
{
        unsigned length = head[1] & 127;
        uint64_t n = 0;

        if (length < 126)
                return length;
        for (unsigned i = 0; i < (length == 126 ? 2u : 8u); i++)
                n = n << 8 | head[2 + i];
        return n;
}

static void head_ends(struct websocket *w)
{
        w->left = payload_size(w->frame);
        w->broken = w->left >> 63; /* the most significant bit must be 0 (5.2) */
        w->closing |= (w->frame[0] & 15) == OPCODE_CLOSE;
        w->n = 0;
}

/* ---------------------------------------------------------------- PONGs */

static bool answers_ours(const struct websocket *w)
{
        size_t head = head_size(w->frame);
        const uint8_t *key = w->frame + head - 4, *payload = w->frame + head;
        bool masked = w->frame[1] & MASKED;
        uint8_t diff = 0;

        if ((w->frame[1] & 127) != WEBSOCKET_MARK)
                return false;
        for (unsigned i = 0; i < WEBSOCKET_MARK; i++)
                diff |= (uint8_t)(payload[i] ^ (masked ? key[i % 4] : 0) ^ w->mark[i]);
        return diff == 0;
}

/* How long it will be, as far as is known. */
static size_t pong_size(const struct websocket *w)
{
        return w->n < 2 ? 2 : head_size(w->frame) + (w->frame[1] & 127);
}

/* Takes what is there of a PONG; returns how many bytes.  A complete one passes, or is dropped. */
static size_t hold(struct websocket *w, struct buf *to, str in)
{
        size_t used = 0;

        while (used < in.n && w->n < pong_size(w)) {
                w->frame[w->n++] = (uint8_t)in.p[used++];
                if (w->n == 2 && (w->frame[1] & 127) > CONTROL_MAX) {
                        w->held = false; /* not allowed: let its receiver judge it */
                        buf_put(to, w->frame, w->n);
                        return used;
                }
        }
        if (w->n < pong_size(w))
                return used;
        if (!answers_ours(w))
                buf_put(to, w->frame, w->n);
        w->held = false;
        w->n = 0;
        return used;
}

/* ---------------------------------------------------------------- passing */

/* How many bytes of in pass as they are, up to a boundary that matters or the end. */
static size_t pass(struct websocket *w, str in)
{
        size_t i = 0;

        while (i < in.n) {
                if (w->broken)
                        return in.n;
                if (w->left > 0) {
                        size_t n = (size_t)MIN(w->left, in.n - i);
                        w->left -= n;
                        i += n;
                        continue;
                }
                if (w->n == 0 && w->due && i > 0 && between(w))
                        return i;
                if (w->n == 0 && ((uint8_t)in.p[i] & 15) == OPCODE_PONG) {
                        w->held = i == 0;
                        return i;
                }
                w->frame[w->n++] = (uint8_t)in.p[i++];
                if (w->n >= 2 && w->n == head_size(w->frame))
                        head_ends(w);
        }
        return i;
}

static void ping_if_due(struct websocket *w, struct buf *to)
{
        if (!w->due || !between(w))
                return;
        buf_put(to, w->ping, w->ping_n);
        w->due = false;
}

/* Returns how many bytes of in are done with; *as_is of them are still to be passed on. */
static size_t step(struct websocket *w, struct buf *to, str in, size_t *as_is)
{
        *as_is = 0;
        ping_if_due(w, to);
        if (!w->held)
                *as_is = pass(w, in);
        return w->held ? hold(w, to, in) : *as_is;
}

void websocket_move(struct websocket *w, struct buf *to, struct buf *from, size_t n)
{
        CHECK(n <= from->n);
        while (n > 0) {
                size_t as_is, used = step(w, to, str_head(buf_front(from), n), &as_is);
                if (as_is > 0)
                        buf_move(to, from, as_is);
                else
                        buf_drain(from, used);
                n -= used;
        }
        ping_if_due(w, to);
}

void websocket_put(struct websocket *w, struct buf *to, str in)
{
        while (in.n > 0) {
                size_t as_is, used = step(w, to, in, &as_is);
                buf_put(to, in.p, as_is);
                in = str_from(in, used);
        }
        ping_if_due(w, to);
}

/* ---------------------------------------------------------------- PINGs */

bool websocket_ping(struct websocket *w, struct buf *to, const uint8_t key[4])
{
        uint8_t n = 0;

        if (w->closing || w->broken)
                return false;
        w->ping[n++] = FINAL | OPCODE_PING;
        w->ping[n++] = (uint8_t)(WEBSOCKET_MARK | (key ? MASKED : 0));
        for (unsigned i = 0; key && i < 4; i++)
                w->ping[n++] = key[i];
        for (unsigned i = 0; i < WEBSOCKET_MARK; i++)
                w->ping[n++] = (uint8_t)(w->mark[i] ^ (key ? key[i % 4] : 0));
        w->ping_n = n;
        w->due = true;
        ping_if_due(w, to);
        return true;
}
