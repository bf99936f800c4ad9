/*
 * Causes, methods and the budget of retries (retry.h).
 *
 * The one difficulty: retries must not make an outage worse.  A budget that is a share of the
 * requests lets a single failure be repeated at once, and when everything fails adds no more load
 * than that share.
 */
#include "proxy/retry.h"

#include "base/check.h"
#include "http/grpc.h"

uint32_t retry_class(enum reason why)
{
        switch (why) {
        case REASON_CONNECT_FAILED:
        case REASON_UPSTREAM_TLS:
                return RETRY_CONNECT_ERROR;
        case REASON_CONNECT_TIMEOUT:
                return RETRY_CONNECT_ERROR | RETRY_TIMEOUT;
        case REASON_UPSTREAM_RESET:
        case REASON_SERVER_CLOSED:
        case REASON_UPSTREAM_STREAM_RESET:
        case REASON_UPSTREAM_H2:
        case REASON_UPSTREAM_FLOOD:
                return RETRY_RESET;
        case REASON_UPSTREAM_REFUSED:
                return RETRY_CONNECT_ERROR | RETRY_RESET;
        case REASON_UPSTREAM_PING:
                return RETRY_RESET | RETRY_TIMEOUT;
        case REASON_RESPONSE_TIMEOUT:
                return RETRY_TIMEOUT;
        default:
                return 0;
        }
}

uint32_t retry_class_of_status(int status)
{
        return status == 502   ? RETRY_502
               : status == 503 ? RETRY_503
               : status == 504 ? RETRY_504
                               : 0;
}

uint32_t retry_class_of_grpc(int status)
{
        switch (status) {
        case GRPC_CANCELLED:
                return RETRY_GRPC_CANCELLED;
        case GRPC_UNKNOWN:
                return RETRY_GRPC_UNKNOWN;
        case GRPC_DEADLINE_EXCEEDED:
                return RETRY_GRPC_DEADLINE_EXCEEDED;
        case GRPC_RESOURCE_EXHAUSTED:
                return RETRY_GRPC_RESOURCE_EXHAUSTED;
        case GRPC_ABORTED:
                return RETRY_GRPC_ABORTED;
        case GRPC_INTERNAL:
                return RETRY_GRPC_INTERNAL;
        case GRPC_UNAVAILABLE:
                return RETRY_GRPC_UNAVAILABLE;
        default:
                return 0;
        }
}

bool retry_idempotent(enum method m)
{
        return method_safe(m) || m == METHOD_PUT || m == METHOD_DELETE;
}

void retry_budget_earn(struct upstream_loop *ul, double budget)
{
        ul->tokens = MIN(ul->tokens + budget, RETRY_TOKENS);
}

static void count_hit(struct upstream_loop *ul, metric_cell **cell, str labels)
{
        if (!*cell)
                *cell = metric_series(ul->loop->metrics, METRIC_LIMIT_HITS, labels);
        metric_add(*cell, 1);
}

bool retry_budget_take(struct upstream_loop *ul, double budget)
{
        if (budget > 0 && ul->tokens >= 1) {
                ul->tokens -= 1;
                return true;
        }
        if (log_quota(&ul->quota, 1))
                log_warn(ul->u->subject,
                         "retry budget=%.0f%% is used up: requests fail with their first failure",
                         budget * 100);
        count_hit(ul, &ul->over_budget, STR("setting=\"retry budget\""));
        return false;
}

void retry_replay_exceeded(struct upstream_loop *ul, uint64_t replay)
{
        if (log_quota(&ul->quota, 1))
                log_warn(ul->u->subject,
                         "retry replay=%llu: a call has sent more and fails with its first failure",
                         (unsigned long long)replay);
        count_hit(ul, &ul->over_replay, STR("setting=\"retry replay\""));
}
