/* flags: -Wl,-z,nodelete
 * Cannot be unloaded: is served, and stays. */
#include <weir/module.h>

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        (void)r, (void)inst, (void)ctx;
        return WEIR_CONTINUE;
}

WEIR_MODULE(.name = "bad_nodelete", .version = "1", .on_request = hook);
