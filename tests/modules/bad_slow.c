/* flags:
 * Takes 300 ms of the loop for each request. */
#include <weir/module.h>

#include <time.h>

static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        struct timespec ts = {0, 300000000};

        (void)r, (void)inst, (void)ctx;
        nanosleep(&ts, NULL);
        return WEIR_CONTINUE;
}

WEIR_MODULE(.name = "bad_slow", .version = "1", .on_request = hook);
