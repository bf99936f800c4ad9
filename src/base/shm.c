/* Memory shared by the master and all workers. */
#include "base/shm.h"

#include "base/check.h"

#include <sys/mman.h>

void *shm_new(size_t bytes)
{
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        CHECK(p != MAP_FAILED);
        return p;
}

void shm_free(void *p, size_t bytes)
{
        if (p)
                CHECK(munmap(p, bytes) == 0);
}
