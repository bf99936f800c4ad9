/* flags:
 * Never returns when a request asks for /hang. */
#include <weir/module.h>

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        weir_str path;

        (void)inst, (void)ctx;
        if (weir->var_get(r, WEIR_STR("path"), &path) && weir_eq(path, WEIR_STR("/hang")))
                for (volatile int i = 0;; i++)
                        ;
        return WEIR_CONTINUE;
}

WEIR_MODULE(.name = "bad_loop", .version = "1", .on_request = hook);
