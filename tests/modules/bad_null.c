/* flags:
 * Reads through a null pointer when a request asks for /crash; any other passes. */
#include <weir/module.h>

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        weir_str path;

        (void)inst, (void)ctx;
        if (weir->var_get(r, WEIR_STR("path"), &path) && weir_eq(path, WEIR_STR("/crash")))
                *(volatile int *)0 = 1;
        return WEIR_CONTINUE;
}

WEIR_MODULE(.name = "bad_null", .version = "1", .on_request = hook);
