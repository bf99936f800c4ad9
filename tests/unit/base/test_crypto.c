/* Known answers, strict decoding, and randomness that differs after a fork. */
#include "base/crypto.c"

#include "unit.h"

static void assert_hex(const uint8_t *p, size_t n, const char *want)
{
        char hex[129];

        crypto_hex(hex, p, n);
        hex[2 * n] = '\0';
        assert_string_equal(hex, want);
}

static void digests(void **state)
{
        uint8_t out[32];
        char key[131];

        (void)state;
        crypto_init();
        crypto_init();
        crypto_sha256(STR("abc"), out); /* FIPS 180-2 B.1 */
        assert_hex(out, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        crypto_sha256(STR_NONE, out);
        assert_hex(out, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        /* RFC 4231 test cases 2 and 6 */
        crypto_hmac_sha256(STR("Jefe"), STR("what do ya want for nothing?"), out);
        assert_hex(out, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        memset(key, 0xaa, sizeof(key));
        crypto_hmac_sha256(str_of(key, sizeof(key)),
                           STR("Test Using Larger Than Block-Size Key - Hash Key First"), out);
        assert_hex(out, 32, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
        crypto_hmac_sha256(STR_NONE, STR_NONE, out);
        assert_hex(out, 32, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void siphash_known(void **state)
{
        uint8_t key[16];
        char data[64];

        (void)state;
        for (int i = 0; i < 16; i++)
                key[i] = (uint8_t)i;
        for (int i = 0; i < 64; i++)
                data[i] = (char)i;
        /* the paper's appendix A, and the first rows of its published vectors */
        assert_int_equal(crypto_siphash(key, str_of(data, 15)), UINT64_C(0xa129ca6149be45e5));
        assert_int_equal(crypto_siphash(key, str_of(data, 0)), UINT64_C(0x726fdb47dd0e0e31));
        assert_int_equal(crypto_siphash(key, str_of(data, 8)), UINT64_C(0x93f5f5799a932462));
}

static void base64(void **state)
{
        static const struct {
                const char *plain, *text, *url;
        } rows[] = {/* RFC 4648 section 10, and digits 62 and 63 */
                    {"", "", ""},
                    {"f", "Zg==", "Zg"},
                    {"fo", "Zm8=", "Zm8"},
                    {"foo", "Zm9v", "Zm9v"},
                    {"foob", "Zm9vYg==", "Zm9vYg"},
                    {"fooba", "Zm9vYmE=", "Zm9vYmE"},
                    {"foobar", "Zm9vYmFy", "Zm9vYmFy"},
                    {"\xfb\xff\xfe", "+//+", "-__-"}};
        static const char *const bad[] = {
                "Z",    "Zg",    "Zg=",   "Zh==", "Zm9=",   "Zg==Zg==", "====",
                "Z===", "Zg\n=", " Zg==", "-__-", "Zg==\n", "Zm9v=",    "="};
        static const char *const bad_url[] = {"Z", "Zg==", "Zh", "Zm9", "+//+", "Zg ", "Zm8="};
        struct arena *a = arena_new(0);
        str out = STR("kept");

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                str plain = str_z(rows[i].plain), text = str_z(rows[i].text),
                    url = str_z(rows[i].url);
                assert_true(str_eq(crypto_base64(a, plain, false), text));
                assert_true(str_eq(crypto_base64(a, plain, true), url));
                assert_true(crypto_base64_decode(a, text, false, &out) && str_eq(out, plain));
                assert_true(crypto_base64_decode(a, url, true, &out) && str_eq(out, plain));
        }
        out = STR("kept");
        for (size_t i = 0; i < COUNT(bad); i++)
                assert_false(crypto_base64_decode(a, str_z(bad[i]), false, &out));
        for (size_t i = 0; i < COUNT(bad_url); i++)
                assert_false(crypto_base64_decode(a, str_z(bad_url[i]), true, &out));
        ASSERT_STR(out, "kept");
        arena_free(a);
        a = arena_new(16);
        assert_null(crypto_base64(a, STR("0123456789abcdef"), true).p);
        assert_false(crypto_base64_decode(a, STR("Zm9vYmFyZm9vYmFyZm9vYmFy"), true, &out));
        arena_free(a);
        arena_thread_end();
}

static void base64_round_trip(void **state)
{
        struct arena *a = arena_new(0);
        char bytes[100];
        str out;

        (void)state;
        for (size_t n = 0; n < sizeof(bytes); n++) {
                crypto_random(bytes, n);
                for (int url = 0; url < 2; url++) {
                        str text = crypto_base64(a, str_of(bytes, n), url);
                        assert_true(crypto_base64_decode(a, text, url, &out));
                        assert_true(str_eq(out, str_of(bytes, n)));
                }
        }
        arena_free(a);
        arena_thread_end();
}

static void equal(void **state)
{
        (void)state;
        assert_true(crypto_equal(STR("abc"), STR("abc")));
        assert_false(crypto_equal(STR("abc"), STR("abd")));
        assert_false(crypto_equal(STR("abc"), STR("ab")));
        assert_true(crypto_equal(STR_NONE, STR("")));
}

static void random_differs_after_fork(void **state)
{
        uint64_t mine, theirs = 0;
        int pipes[2], status;
        pid_t pid;

        (void)state;
        crypto_fast_random(); /* seeded before the fork */
        assert_int_equal(pipe(pipes), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                theirs = crypto_fast_random();
                _exit(write(pipes[1], &theirs, sizeof(theirs)) != sizeof(theirs));
        }
        mine = crypto_fast_random();
        assert_int_equal(read(pipes[0], &theirs, sizeof(theirs)), sizeof(theirs));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_not_equal(mine, theirs);
        close(pipes[0]);
        close(pipes[1]);
}

static void random_is_spread(void **state)
{
        unsigned counts[16] = {0};

        (void)state;
        for (int i = 0; i < 16000; i++)
                counts[crypto_fast_random() % 16]++;
        for (int i = 0; i < 16; i++)
                assert_in_range(counts[i], 800, 1200);
}

static void sha1(void **state) /* RFC 3174, 7.3 */
{
        uint8_t md[20];
        char hex[40];

        (void)state;
        crypto_sha1(STR("abc"), md);
        crypto_hex(hex, md, sizeof(md));
        assert_memory_equal(hex, "a9993e364706816aba3e25717850c26c9cd0d89d", 40);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(sha1),
                cmocka_unit_test(digests),
                cmocka_unit_test(siphash_known),
                cmocka_unit_test(base64),
                cmocka_unit_test(base64_round_trip),
                cmocka_unit_test(equal),
                cmocka_unit_test(random_differs_after_fork),
                cmocka_unit_test(random_is_spread),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
