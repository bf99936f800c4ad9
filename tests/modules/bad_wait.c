/* flags:
 * Waits for somebody who never comes: ends with timeout=. */
#include <weir/module.h>

static weir_rc woke(weir_task *t, const void *inst, void *ctx, void *arg)
{
        (void)t, (void)inst, (void)ctx, (void)arg;
        return WEIR_CONTINUE;
}

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        (void)inst, (void)ctx;
        return weir->timer(r, INT64_C(3600000000), woke, NULL);
}

WEIR_MODULE(.name = "bad_wait", .version = "1", .on_request = hook);
