/*
 * What the codecs keep per loop: their objects' slabs, the list of client connections, the
 * cells of their counters.  Private to http/.
 */
#ifndef HTTP_CODECS_H
#define HTTP_CODECS_H

#include "http/h2_memory.h"
#include "net/loop.h"

/* The counters of one listener.  Owned by its loop's struct codecs; name is a copy. */
struct codecs_listener {
        struct codecs_listener *next;
        char *name;
        metric_cell *total, *open_cell;
        uint64_t open;
};

struct codecs {
        struct slab servers, clients, streams; /* streams: of HTTP/2 from clients */
        struct h2_memory h2_memory;
        struct list connections; /* of struct downstream */
        uint32_t n_connections;
        bool draining;
        uint64_t serial;
        struct codecs_listener *listeners;
};

struct codecs *codecs(struct loop *l);
struct codecs_listener *codecs_listener(struct loop *l, const char *name);

/* Of h1_stream.c, h1_client.c and h2_server.c, so that the slabs know their sizes. */
extern const size_t h1_conn_size, h1_client_size, h2_stream_size;

#endif
