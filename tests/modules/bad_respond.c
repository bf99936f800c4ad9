/* flags:
 * Says that it has answered, and has not. */
#include <weir/module.h>

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        (void)r, (void)inst, (void)ctx;
        return WEIR_RESPOND;
}

WEIR_MODULE(.name = "bad_respond", .version = "1", .on_request = hook);
