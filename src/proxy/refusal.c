/*
 * Refused requests in the log and in the metrics (refusal.h).
 *
 * The difficulty is what an attacker can make of them: lines are limited in number and in length.
 */
#include "proxy/refusal.h"

#include "base/log.h"

#include <stdio.h>

static metric_cell *labelled(struct loop *l, unsigned family, const char *label, str value)
{
        struct buf labels = BUF_INIT;
        metric_label(&labels, label, value);
        metric_cell *c = metric_series(l->metrics, family, buf_front(&labels));
        buf_clear(&labels);
        return c;
}

void refusal_count_reply(struct loop *l, metric_cell **c, enum reason why)
{
        if (*c == NULL)
                *c = labelled(l, METRIC_LOCAL_REPLIES, "reason", str_z(reason_word(why)));
        metric_add(*c, 1);
}

void refusal_say(struct request *r, enum reason why)
{
        static _Thread_local struct log_quota quota;
        char peer[ADDR_TEXT] = "?", subject[ADDR_TEXT + 16];
        const struct client_facts *facts = r->client ? r->client->facts(r) : NULL;

        if (!log_wants(LOG_INFO) || !log_quota(&quota, 50))
                return;
        if (facts != NULL)
                addr_print(&facts->peer, peer);
        snprintf(subject, sizeof subject, "client %s", peer);
        if (r->limit != 0)
                log_info(subject, "%d %s: %s (limit %llu, measured %llu)", reason_rows[why].status,
                         reason_word(why), reason_rows[why].text, (unsigned long long)r->limit,
                         (unsigned long long)r->measured);
        else
                log_info(subject, "%d %s: %s: %.*s %.*s", reason_rows[why].status, reason_word(why),
                         reason_rows[why].text, STR_ARG(r->req.method_text),
                         STR_ARG(str_head(r->req.target, 200)));
}

/* By the setting's name, with which the sentence of such a reason begins. */
void refusal_count_limit(struct loop *l, metric_cell **c, enum reason why)
{
        str setting, rest;
        if (*c == NULL) {
                str_cut(str_z(reason_rows[why].text), ':', &setting, &rest);
                *c = labelled(l, METRIC_LIMIT_HITS, "setting", setting);
        }
        metric_add(*c, 1);
}

bool refusal_is_limit(enum reason why)
{
        switch (why) {
        case REASON_BODY_MAX:
        case REASON_HEADER_LINE:
        case REASON_FIELD_LINE:
        case REASON_HEADER_MAX:
        case REASON_HEADER_FIELDS:
        case REASON_CLIENT_HEAD:
        case REASON_CLIENT_BODY:
        case REASON_QUEUE_TIMEOUT:
        case REASON_CONNECT_TIMEOUT:
        case REASON_RESPONSE_TIMEOUT:
        case REASON_RESPONSE_IDLE:
        case REASON_REQUEST_TIMEOUT:
        case REASON_UPSTREAM_HEADER_MAX:
        case REASON_FUNCTION_BODY_MAX:
        case REASON_FUNCTION_RESPONSE_MAX:
                return true;
        default:
                return false;
        }
}
