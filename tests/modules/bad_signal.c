/* flags:
 * Takes a signal over. */
#include <weir/module.h>

#include <signal.h>

static weir_err create(weir_conf *c, void *inst)
{
        (void)c, (void)inst;
        signal(SIGUSR1, SIG_IGN);
        return WEIR_OK;
}

WEIR_MODULE(.name = "bad_signal", .version = "1", .create = create);
