/* The answer to a health check: any bytes give a verdict, a name, and only what is whole is one. */
#include "base/check.h"
#include "http/grpc_health.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        enum grpc_health whole = grpc_health_answer(str_of(data, size));
        struct buf ask = BUF_INIT;

        CHECK(whole >= GRPC_HEALTH_BROKEN && whole <= GRPC_HEALTH_SERVICE_UNKNOWN);
        CHECK(*grpc_health_name(whole) != '?');
        if (whole != GRPC_HEALTH_BROKEN && size > 0)
                CHECK(grpc_health_answer(str_of(data, size - 1)) == GRPC_HEALTH_BROKEN);
        /* The question is a message as well, and one that holds no status. */
        grpc_health_ask(&ask, str_of(data, size));
        CHECK(grpc_health_answer(buf_pullup(&ask, ask.n)) == GRPC_HEALTH_UNKNOWN);
        buf_clear(&ask);
        return 0;
}
