/* flags: -Wl,-z,execstack
 * Asks for an executable stack. */
#include <weir/module.h>

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        (void)r, (void)inst, (void)ctx;
        return WEIR_CONTINUE;
}

WEIR_MODULE(.name = "bad_execstack", .version = "1", .on_request = hook);
