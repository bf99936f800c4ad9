/* flags:
 * Sends every request to the upstream that its argument names, whatever the route says, or to one
 * server of it. */
#include <weir/module.h>

struct conf {
        weir_upstream *to;
        const weir_template *server;
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, to, UPSTREAM, 0, NULL, "Where requests go."),
        WEIR_ARG(struct conf, server, TEMPLATE, 0, NULL, "Which server is to have them."),
};

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        weir_str server;

        (void)ctx;
        if (c->to)
                weir->upstream_set(r, c->to);
        if (!c->server)
                return WEIR_CONTINUE;
        server = weir->expand(r, c->server);
        if (server.n > 0 && weir->var_set(r, WEIR_STR("server"), server))
                return WEIR_ERROR;
        return WEIR_CONTINUE;
}

WEIR_MODULE(.name = "choose", .version = "1", WEIR_ARGS(struct conf, args), .on_request = hook);
