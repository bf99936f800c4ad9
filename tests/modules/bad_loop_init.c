/* flags:
 * Cannot be prepared on a loop. */
#include <weir/module.h>

static weir_err loop_init(weir_task *t, const void *inst, void *loop)
{
        (void)t, (void)inst, (void)loop;
        return WEIR_E_UNAVAIL;
}

WEIR_MODULE(.name = "bad_loop_init", .version = "1", .loop_init = loop_init);
