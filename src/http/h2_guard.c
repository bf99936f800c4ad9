/*
 * Budgets against abuse of HTTP/2.
 *
 * The difficulty is telling abuse from haste: browsers reset dozens of streams when a page is left,
 * and ask for settings and pings now and then.  So counts are kept over ten seconds, and each kind
 * has a limit of its own that can be set.
 */
#include "http/h2_guard.h"

#include "base/log.h"

#include <stdio.h>

static uint32_t limit_of(const struct h2_limits *lim, enum h2_abuse what)
{
        switch (what) {
        case H2_RESETS:
                return lim->resets;
        case H2_PINGS:
                return lim->pings;
        case H2_SETTINGS:
                return lim->settings;
        case H2_PRIORITIES:
                return lim->priorities;
        case H2_EMPTY_DATA:
                return lim->empty_data;
        case H2_WINDOW_UPDATES:
                return lim->window_updates;
        case H2_UNKNOWN:
                return lim->unknown;
        case H2_ABUSES:
                break;
        }
        UNREACHABLE();
}

enum reason h2_guard_count(struct h2_guard *g, const struct h2_limits *lim, int64_t now,
                           enum h2_abuse what)
{
        static const enum reason reasons[H2_ABUSES] = {
                [H2_RESETS] = REASON_H2_RESETS,
                [H2_PINGS] = REASON_H2_PINGS,
                [H2_SETTINGS] = REASON_H2_SETTINGS,
                [H2_PRIORITIES] = REASON_H2_PRIORITIES,
                [H2_EMPTY_DATA] = REASON_H2_EMPTY_DATA,
                [H2_WINDOW_UPDATES] = REASON_H2_WINDOW_UPDATES,
                [H2_UNKNOWN] = REASON_H2_UNKNOWN,
        };
        uint32_t limit = limit_of(lim, what);
        if (now - g->since >= H2_GUARD_WINDOW) {
                g->since = now;
                memset(g->used, 0, sizeof(g->used));
        }
        if (++g->used[what] <= limit || limit == 0)
                return REASON_NONE;
        g->measured = g->used[what];
        g->limit = limit;
        return reasons[what];
}

enum reason h2_guard_frame(struct h2_guard *g, const struct h2_limits *lim, int64_t now,
                           const nghttp2_frame_hd *hd)
{
        bool ack = hd->flags & NGHTTP2_FLAG_ACK;
        switch (hd->type) {
        case NGHTTP2_RST_STREAM:
                return h2_guard_count(g, lim, now, H2_RESETS);
        case NGHTTP2_PING:
                return ack ? REASON_NONE : h2_guard_count(g, lim, now, H2_PINGS);
        case NGHTTP2_SETTINGS:
                return ack ? REASON_NONE : h2_guard_count(g, lim, now, H2_SETTINGS);
        case NGHTTP2_PRIORITY:
        case NGHTTP2_PRIORITY_UPDATE:
                return h2_guard_count(g, lim, now, H2_PRIORITIES);
        case NGHTTP2_DATA:
                if (hd->length == 0 && !(hd->flags & NGHTTP2_FLAG_END_STREAM))
                        return h2_guard_count(g, lim, now, H2_EMPTY_DATA);
                break;
        case NGHTTP2_WINDOW_UPDATE:
                if (g->updates_due == 0)
                        return h2_guard_count(g, lim, now, H2_WINDOW_UPDATES);
                g->updates_due--;
                break;
        case NGHTTP2_HEADERS:
        case NGHTTP2_PUSH_PROMISE:
        case NGHTTP2_GOAWAY:
        case NGHTTP2_CONTINUATION:
                break;
        default:
                return h2_guard_count(g, lim, now, H2_UNKNOWN);
        }
        return REASON_NONE;
}

void h2_guard_say(const struct h2_guard *g, struct loop *l, const struct addr *peer,
                  enum reason why)
{
        static _Thread_local struct log_quota quota;
        char text[ADDR_TEXT], subject[ADDR_TEXT + 16];
        str setting, rest;
        if (l->metrics) {
                struct buf labels = BUF_INIT;
                str_cut(str_z(reason_rows[why].text), ':', &setting, &rest);
                metric_label(&labels, "setting", setting);
                metric_add(metric_series(l->metrics, METRIC_LIMIT_HITS, buf_front(&labels)), 1);
                buf_clear(&labels);
        }
        if (!log_wants(LOG_INFO) || !log_quota(&quota, 50))
                return;
        addr_print(peer, text);
        snprintf(subject, sizeof(subject), "client %s", text);
        if (g->limit)
                log_info(subject, "%s: %s (limit %llu, measured %llu)", reason_word(why),
                         reason_rows[why].text, (unsigned long long)g->limit,
                         (unsigned long long)g->measured);
        else
                log_info(subject, "%s: %s", reason_word(why), reason_rows[why].text);
}
