/* flags:
 * Overflows the stack when a request asks for /crash. */
#include <weir/module.h>

static int deeper(volatile char *above, int n)
{
        volatile char frame[4096];

        frame[0] = above[0];
        return n == 0 ? 0 : deeper(frame, n - (n > 0)) + frame[0];
}

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        volatile char top[1] = {0};
        weir_str path;

        (void)inst, (void)ctx;
        if (weir->var_get(r, WEIR_STR("path"), &path) && weir_eq(path, WEIR_STR("/crash")))
                return deeper(top, -1);
        return WEIR_CONTINUE;
}

WEIR_MODULE(.name = "bad_stack", .version = "1", .on_request = hook);
