/* flags:
 * Ends the process with status 0 while it is being created. */
#include <weir/module.h>

#include <stdlib.h>

static weir_err create(weir_conf *c, void *inst)
{
        (void)c, (void)inst;
        exit(0);
}

WEIR_MODULE(.name = "bad_exit", .version = "1", .create = create);
