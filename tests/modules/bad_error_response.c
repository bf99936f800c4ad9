/* flags:
 * Fails each response. */
#include <weir/module.h>

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        (void)r, (void)inst, (void)ctx;
        return WEIR_ERROR;
}

WEIR_MODULE(.name = "bad_error_response", .version = "1", .on_response = hook);
