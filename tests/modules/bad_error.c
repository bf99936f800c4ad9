/* flags:
 * Fails each request. */
#include <weir/module.h>

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        (void)r, (void)inst, (void)ctx;
        return WEIR_ERROR;
}

WEIR_MODULE(.name = "bad_error", .version = "1", .on_request = hook);
