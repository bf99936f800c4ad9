/*
 * Frames of a WebSocket: however the input is cut and whenever a PING is asked for, what passes is
 * the input without the PONGs that answer ours, with PINGs between frames only.  The oracle reads
 * frames in one piece, and knows nothing of how the tracker does it.
 */
#include "base/check.h"
#include "http/websocket.h"

static const uint8_t mark[WEBSOCKET_MARK] = "weirmark";
static const uint8_t key[4] = {1, 2, 3, 4};

/* The frame at the front: its length, or 0 if it is not complete; *ours: it has our mark. */
static size_t frame_at(str in, unsigned *opcode, bool *ours)
{
        const uint8_t *p = (const uint8_t *)in.p;
        size_t head = 2;
        uint64_t n;

        if (in.n < 2)
                return 0;
        *opcode = p[0] & 15;
        n = p[1] & 127;
        head += n == 126 ? 2 : n == 127 ? 8 : 0;
        head += p[1] & 128 ? 4 : 0;
        if (in.n < head)
                return 0;
        if (n >= 126) {
                size_t bytes = n == 126 ? 2 : 8;
                n = 0;
                for (size_t i = 0; i < bytes; i++)
                        n = n << 8 | p[2 + i];
        }
        if (n > in.n - head)
                return 0;
        *ours = n == WEBSOCKET_MARK && (p[1] & 127) == n;
        for (size_t i = 0; *ours && i < n; i++)
                *ours = (uint8_t)(p[head + i] ^ (p[1] & 128 ? p[head - 4 + i % 4] : 0)) == mark[i];
        return head + (size_t)n;
}

/* What must have passed of in: all but PONGs of ours, and but a PONG that is not complete. */
static void expected(str in, struct buf *out)
{
        unsigned opcode;
        bool ours;

        while (in.n > 0) {
                size_t n = frame_at(in, &opcode, &ours);
                if (n == 0) {
                        bool pong = ((uint8_t)in.p[0] & 15) == 10;
                        bool legal = in.n < 2 || ((uint8_t)in.p[1] & 127) < 126;
                        if (!(pong && legal))
                                buf_puts(out, in);
                        return;
                }
                if (!(opcode == 10 && ours))
                        buf_puts(out, str_head(in, n));
                in = str_from(in, n);
        }
}

/* out without the PINGs of ours, all of which must stand between frames; returns how many. */
static unsigned without_pings(str in, struct buf *out)
{
        unsigned opcode, pings = 0;
        bool ours;

        while (in.n > 0) {
                size_t n = frame_at(in, &opcode, &ours);
                if (n != 0 && opcode == 9 && ours) {
                        pings++;
                } else {
                        n = n != 0 ? n : in.n;
                        buf_puts(out, str_head(in, n));
                }
                in = str_from(in, n);
        }
        return pings;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct buf want = BUF_INIT, want_bare = BUF_INIT, got = BUF_INIT, bare = BUF_INIT;
        struct buf queue = BUF_INIT;
        struct websocket w;
        size_t at = 0;

        if (size < 3)
                return 0;
        str in = str_of(data + 3, size - 3);
        size_t cut = 1 + data[0] % 32, every = data[1] % 8, asked = 0, step = 0;
        bool moves = data[2] & 1, masked = data[2] & 2;
        expected(in, &want);
        websocket_begin(&w, mark);
        for (; at < in.n; at += MIN(cut, in.n - at), step++) {
                str piece = str_head(str_from(in, at), cut);
                if (every && step % every == 0)
                        asked += websocket_ping(&w, &got, masked ? key : NULL);
                if (moves) {
                        buf_puts(&queue, piece);
                        websocket_move(&w, &got, &queue, queue.n);
                } else {
                        websocket_put(&w, &got, piece);
                }
        }
        /* The input may hold such PINGs itself. */
        unsigned own = without_pings(buf_pullup(&want, want.n), &want_bare);
        unsigned all = without_pings(buf_pullup(&got, got.n), &bare);
        CHECK(all >= own && all - own <= asked && (asked > 0 || all == own));
        CHECK(str_eq(buf_pullup(&want_bare, want_bare.n), buf_pullup(&bare, bare.n)));
        buf_clear(&want);
        buf_clear(&want_bare);
        buf_clear(&got);
        buf_clear(&bare);
        buf_clear(&queue);
        return 0;
}
