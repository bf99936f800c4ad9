/* flags:
 * Takes all memory that it gets, for each request. */
#include <weir/module.h>

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        (void)r, (void)inst, (void)ctx;
        while (weir->alloc(r, 1024))
                ;
        return WEIR_ERROR;
}

WEIR_MODULE(.name = "bad_memory", .version = "1", .on_request = hook);
