/* flags:
 * Waits for nothing. */
#include <weir/module.h>

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        (void)r, (void)inst, (void)ctx;
        return WEIR_SUSPEND;
}

WEIR_MODULE(.name = "bad_suspend", .version = "1", .on_request = hook);
