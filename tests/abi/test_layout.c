/*
 * The layout of everything that crosses between weir and modules, compared with the golden tables
 * of the released minors.
 *
 * A difference is a broken promise (V2 of the header): fields are appended, and nothing else. After
 * appending, write the new minor's table with:  test_layout > tests/abi/MAJOR.MINOR/layout.txt
 */
#include <weir/module.h>

#include <stdio.h>
#include <stdlib.h>

struct row {
        const char *type, *field;
        size_t offset, size;
};

#define ROW(type, field)                                                                           \
        {                                                                                          \
#type, #field, offsetof(type, field), sizeof(((type *)0)->field)                   \
        }

static const struct row rows[] = {
        ROW(weir_str, p),
        ROW(weir_str, n),
        ROW(weir_text, text),
        ROW(weir_text, file),
        ROW(weir_text, line),
        ROW(weir_rate, count),
        ROW(weir_rate, per_us),
        ROW(weir_list, v),
        ROW(weir_list, n),
        ROW(weir_arg, name),
        ROW(weir_arg, type),
        ROW(weir_arg, flags),
        ROW(weir_arg, offset),
        ROW(weir_arg, dflt),
        ROW(weir_arg, help),
        ROW(weir_arg, choices),
        ROW(weir_arg, min),
        ROW(weir_arg, max),
        ROW(weir_arg, line),
        ROW(weir_arg, n_line),
        ROW(weir_arg, line_size),
        ROW(weir_value, size),
        ROW(weir_value, type),
        ROW(weir_value, integer),
        ROW(weir_value, number),
        ROW(weir_value, str),
        ROW(weir_value, name),
        ROW(weir_value, n),
        ROW(weir_value, elem),
        ROW(weir_kv, name),
        ROW(weir_kv, value),
        ROW(weir_http_req, size),
        ROW(weir_http_req, flags),
        ROW(weir_http_req, method),
        ROW(weir_http_req, path),
        ROW(weir_http_req, body),
        ROW(weir_http_req, fields),
        ROW(weir_http_req, n_fields),
        ROW(weir_http_req, timeout_us),
        ROW(weir_http_req, max_body),
        ROW(weir_http_res, size),
        ROW(weir_http_res, status),
        ROW(weir_http_res, error),
        ROW(weir_http_res, flags),
        ROW(weir_http_res, body),
        ROW(weir_http_res, fields),
        ROW(weir_http_res, n_fields),
        ROW(weir_chunk, size),
        ROW(weir_chunk, flags),
        ROW(weir_chunk, data),
        ROW(weir_chunk, offset),
        ROW(weir_case, name),
        ROW(weir_case, config),
        ROW(weir_case, request),
        ROW(weir_case, redis),
        ROW(weir_case, upstream),
        ROW(weir_case, expect),
        ROW(weir_case, http),
        ROW(weir_module, magic),
        ROW(weir_module, abi_major),
        ROW(weir_module, abi_minor),
        ROW(weir_module, size),
        ROW(weir_module, arg_size),
        ROW(weir_module, case_size),
        ROW(weir_module, host_size_min),
        ROW(weir_module, name),
        ROW(weir_module, version),
        ROW(weir_module, flags),
        ROW(weir_module, args),
        ROW(weir_module, n_args),
        ROW(weir_module, inst_size),
        ROW(weir_module, named),
        ROW(weir_module, ctx_size),
        ROW(weir_module, loop_size),
        ROW(weir_module, cases),
        ROW(weir_module, n_cases),
        ROW(weir_module, create),
        ROW(weir_module, destroy),
        ROW(weir_module, loop_init),
        ROW(weir_module, loop_fini),
        ROW(weir_module, on_request),
        ROW(weir_module, on_response),
        ROW(weir_module, on_log),
        ROW(weir_module, on_request_body),
        ROW(weir_module, on_response_body),
        ROW(weir_host, size),
        ROW(weir_host, abi_major),
        ROW(weir_host, abi_minor),
        ROW(weir_host, version),
        ROW(weir_host, alloc),
        ROW(weir_host, dup),
        ROW(weir_host, format),
        ROW(weir_host, var_get),
        ROW(weir_host, var_set),
        ROW(weir_host, var_del),
        ROW(weir_host, expand),
        ROW(weir_host, upstream_set),
        ROW(weir_host, header_get),
        ROW(weir_host, header_at),
        ROW(weir_host, header_set),
        ROW(weir_host, header_add),
        ROW(weir_host, header_del),
        ROW(weir_host, respond),
        ROW(weir_host, body_mode),
        ROW(weir_host, body_emit),
        ROW(weir_host, body_drain),
        ROW(weir_host, redis),
        ROW(weir_host, redis_script),
        ROW(weir_host, http),
        ROW(weir_host, timer),
        ROW(weir_host, wait),
        ROW(weir_host, wake),
        ROW(weir_host, spawn),
        ROW(weir_host, loop_data),
        ROW(weir_host, time_left),
        ROW(weir_host, local_get),
        ROW(weir_host, local_set),
        ROW(weir_host, local_del),
        ROW(weir_host, local_update),
        ROW(weir_host, cell_set),
        ROW(weir_host, cell_get),
        ROW(weir_host, log),
        ROW(weir_host, log_fields),
        ROW(weir_host, metric_add),
        ROW(weir_host, metric_set),
        ROW(weir_host, now_us),
        ROW(weir_host, wall_us),
        ROW(weir_host, random),
        ROW(weir_host, encode),
        ROW(weir_host, decode),
        ROW(weir_host, json_parse),
        ROW(weir_host, json_write),
        ROW(weir_host, regex_match),
        ROW(weir_host, regex_replace),
        ROW(weir_host, sha256),
        ROW(weir_host, hmac_sha256),
        ROW(weir_host, equal),
        ROW(weir_host, key_new),
        ROW(weir_host, key_free),
        ROW(weir_host, key_verify),
        ROW(weir_host, conf_error),
        ROW(weir_host, conf_name),
        ROW(weir_host, conf_metric),
        ROW(weir_host, conf_cell),
        ROW(weir_host, conf_script),
};

static size_t print(char *out, size_t n, const struct row *r)
{
        return (size_t)snprintf(out, n, "%s.%s %zu %zu\n", r->type, r->field, r->offset, r->size);
}

/* Each golden line must still be true. */
static int compare(FILE *golden, const char *path)
{
        char line[256], mine[256];
        int wrong = 0;

        while (fgets(line, sizeof(line), golden) != NULL) {
                int found = 0;
                for (size_t i = 0; i < WEIR_COUNT(rows) && !found; i++) {
                        print(mine, sizeof(mine), &rows[i]);
                        found = strcmp(line, mine) == 0;
                }
                if (!found) {
                        fprintf(stderr, "%s: no longer true: %s", path, line);
                        wrong = 1;
                }
        }
        return wrong;
}

int main(void)
{
        const char *top = getenv("top_srcdir");
        int wrong = 0;

        if (top == NULL) {
                for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
                        char line[256];
                        print(line, sizeof(line), &rows[i]);
                        fputs(line, stdout);
                }
                return 0;
        }
        for (int minor = 0; minor <= WEIR_ABI_MINOR; minor++) {
                char path[1024];
                FILE *f;

                snprintf(path, sizeof(path), "%s/tests/abi/%d.%d/layout.txt", top, WEIR_ABI_MAJOR,
                         minor);
                f = fopen(path, "r");
                if (f == NULL) {
                        perror(path);
                        return 1;
                }
                wrong |= compare(f, path);
                fclose(f);
        }
        (void)weir;
        return wrong;
}
