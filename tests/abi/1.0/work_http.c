/* Behaves: on each loop asks an upstream again and again, outside of any request, and answers with
 * what it knows.  On the control thread it tries, once. */
#include <weir/module.h>

struct conf {
        weir_upstream *upstream;
        int64_t every;
        weir_metric *polls, *refused;
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, upstream, UPSTREAM, WEIR_REQUIRED, NULL, "Who is asked."),
        WEIR_ARG(struct conf, every, TIME, 0, "20ms", "And how often."),
};

struct loop { /* of one loop */
        int good, bad, error;
        char last[64];
        size_t n;
};

static weir_rc poll(weir_task *t, const void *inst, void *ctx, void *arg);

static weir_rc polled(weir_task *t, const void *inst, void *ctx, const weir_http_res *res,
                      void *arg)
{
        const struct conf *c = inst;
        struct loop *l = weir->loop_data(t);

        (void)ctx, (void)arg;
        weir->metric_add(c->polls, 1);
        if (res->status == 200 && res->body.n <= sizeof(l->last)) {
                l->good++;
                memcpy(l->last, res->body.p, l->n = res->body.n);
        } else {
                l->bad++;
                l->error = res->error;
        }
        return weir->spawn(t, c->every, poll, NULL, 0) ? WEIR_ERROR : WEIR_DONE;
}

static weir_rc poll(weir_task *t, const void *inst, void *ctx, void *arg)
{
        const struct conf *c = inst;

        (void)ctx, (void)arg;
        return weir->http(t, c->upstream, WEIR_HTTP(.path = WEIR_STR("/poll")), polled, NULL);
}

static weir_rc never(weir_task *t, const void *inst, void *ctx, const weir_http_res *res, void *arg)
{
        (void)t, (void)inst, (void)ctx, (void)res, (void)arg;
        return WEIR_DONE;
}

static weir_rc try_there(weir_task *t, const void *inst, void *ctx, void *arg)
{
        const struct conf *c = inst;

        (void)ctx, (void)arg;
        if (weir->http(t, c->upstream, WEIR_HTTP(.path = WEIR_STR("/control")), never, NULL) ==
            WEIR_ERROR)
                weir->metric_add(c->refused, 1);
        return WEIR_DONE;
}

static weir_err create(weir_conf *conf, void *inst)
{
        struct conf *c = inst;

        c->polls = weir->conf_metric(conf, WEIR_COUNTER, "polls_total", "Answers.", NULL, 0);
        c->refused = weir->conf_metric(conf, WEIR_COUNTER, "refused_total",
                                       "On the control thread.", NULL, 0);
        return weir->spawn(conf, 0, try_there, NULL, 0);
}

static weir_err loop_init(weir_task *t, const void *inst, void *loop)
{
        (void)inst, (void)loop;
        return weir->spawn(t, 0, poll, NULL, 0);
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct loop *l = weir->loop_data(r);

        (void)inst, (void)ctx;
        return weir->respond(r, 200,
                             weir->format(r, "good=%d bad=%d error=%d last=%.*s", l->good, l->bad,
                                          l->error, (int)l->n, l->last));
}

WEIR_MODULE(.name = "work_http", .version = "1", .flags = WEIR_ANSWERS,
            WEIR_ARGS(struct conf, args), .loop_size = sizeof(struct loop), .create = create,
            .loop_init = loop_init, .on_request = request);
