/* flags:
 * Does not do what its own case says. */
#include <weir/module.h>

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        (void)r, (void)inst, (void)ctx;
        return WEIR_CONTINUE;
}

static const weir_case cases[] = {
        {.name = "answers",
         .config = "",
         .request = "GET / HTTP/1.1\nhost: a\n\n",
         .expect = "respond 200"},
};

WEIR_MODULE(.name = "bad_case", .version = "1", WEIR_CASES(cases), .on_request = hook);
