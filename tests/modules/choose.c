/* flags:
 * Sends every request to the upstream that its argument names, whatever the route says. */
#include <weir/module.h>

struct conf {
        weir_upstream *to;
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, to, UPSTREAM, WEIR_REQUIRED, NULL, "Where requests go."),
};

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        (void)ctx;
        weir->upstream_set(r, ((const struct conf *)inst)->to);
        return WEIR_CONTINUE;
}

WEIR_MODULE(.name = "choose", .version = "1", WEIR_ARGS(struct conf, args), .on_request = hook);
