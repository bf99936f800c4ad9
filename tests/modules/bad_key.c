/* flags:
 * Makes a thread key whose destructor would outlive it. */
#include <weir/module.h>

#include <pthread.h>
#include <stdlib.h>

static weir_err create(weir_conf *c, void *inst)
{
        pthread_key_t key;

        (void)c, (void)inst;
        return pthread_key_create(&key, free) ? WEIR_E_NOMEM : WEIR_OK;
}

WEIR_MODULE(.name = "bad_key", .version = "1", .create = create);
