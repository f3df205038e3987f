/* smtpbench: a load source of SMTP sessions, and a sink with a broken EHLO reply. Single-threaded epoll each.
 *
 *   smtpbench sink PORT [--good] [--tls CERTIFICATE KEY] [--lines N]
 *   smtpbench load PORT MODE SESSIONS CONCURRENCY SIZE
 *
 * The sink answers EHLO with STARTTLS in front of the greeting (--good: behind it). After its 220 to STARTTLS the first
 * byte decides: 0x16 is a ClientHello and TLS follows; anything else is the raw phase, which stands for a TLS stream
 * without its cost: an 8-byte big-endian length, that many bytes, and then the sink says "DONE". With --lines the EHLO
 * reply has N more lines, no two replies alike.
 *
 * Modes of the load:
 *   splice  banner, EHLO, STARTTLS, SIZE raw bytes, DONE, close.     CONCURRENCY sessions at a time
 *   mail    banner, EHLO, MAIL, RCPT, DATA of SIZE bytes, QUIT.      the same
 *   tls     banner, EHLO, STARTTLS, handshake, EHLO, MAIL, RCPT, DATA of SIZE bytes, QUIT.   the same
 *   paced   as splice, but CONCURRENCY new sessions a second, whatever became of the earlier ones (open loop)
 *   pacedtls  as tls, in the same open loop
 *   hold    as far as the 220 to STARTTLS, then all are held until standard input ends
 *
 * The result is one JSON line. Every byte count and reply is checked; a session that went wrong is counted as failed,
 * never hidden. Latencies are milliseconds from before connect() to the last byte of the last reply.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 512, CHUNK = 262144, REPLY = 4096, GIVE_UP_SECONDS = 120 };
static const char BROKEN[] = "250-STARTTLS\r\n250-mail.domain1.com\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-HELP\r\n250 DELIVERBY 300\r\n";
static const char GOOD[] = "250-mail.domain1.com\r\n250-STARTTLS\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-HELP\r\n250 DELIVERBY 300\r\n";
static const char INSIDE[] = "250-mail.domain1.com\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-HELP\r\n250 DELIVERBY 300\r\n";
static char chunk[CHUNK];
static SSL_CTX *tls_context;
static int poll_fd;

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static void die(const char *what) { perror(what); exit(2); }
static void allow_many_files(void) {
    struct rlimit many = {1 << 20, 1 << 20};
    if (!setrlimit(RLIMIT_NOFILE, &many)) return;
    getrlimit(RLIMIT_NOFILE, &many); many.rlim_cur = many.rlim_max; setrlimit(RLIMIT_NOFILE, &many);
}

/* ---------- one end of a connection, in clear or in TLS ---------- */
struct stream { int fd; SSL *tls; uint32_t armed; };

static void watch(struct stream *s, void *owner, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = owner};
    if (s->armed == events) return;
    if (epoll_ctl(poll_fd, s->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, s->fd, &e)) die("epoll_ctl");
    s->armed = events;
}
/* bytes moved; 0: not now; -1: over */
static ssize_t result_of(struct stream *s, ssize_t n) {
    if (n > 0) return n;
    if (!s->tls) return n < 0 && errno == EAGAIN ? 0 : -1;
    int why = SSL_get_error(s->tls, n);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}
static ssize_t take(struct stream *s, void *to, size_t room) { return result_of(s, s->tls ? SSL_read(s->tls, to, room) : read(s->fd, to, room)); }
static ssize_t give(struct stream *s, const void *from, size_t n) { return result_of(s, s->tls ? SSL_write(s->tls, from, n) : send(s->fd, from, n, MSG_NOSIGNAL)); }
static int say(struct stream *s, const char *line) { ssize_t n = strlen(line); return give(s, line, n) == n ? 0 : -1; }
static void begin_tls(struct stream *s, int as_server) {
    s->tls = SSL_new(tls_context);
    SSL_set_fd(s->tls, s->fd);
    if (as_server) SSL_set_accept_state(s->tls); else SSL_set_connect_state(s->tls);
}
static void end(struct stream *s) {
    if (s->tls) { SSL_shutdown(s->tls); SSL_free(s->tls); }
    close(s->fd);
}
static void tune(int fd) { int one = 1; setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); }

/* ---------- the sink ---------- */
enum phase { COMMAND, DATA, UNDECIDED, RAW, HANDSHAKE };
struct session { struct stream s; enum phase phase; int line_n, end_n, header_n; char line[1024]; uint64_t want, got; };
static const char *ehlo_reply = BROKEN;
static int sink_has_tls, more_lines;

static int say_ehlo(struct session *x) {
    static char long_reply[65536];
    static unsigned number;
    if (x->s.tls || !more_lines) return say(&x->s, x->s.tls ? INSIDE : ehlo_reply);
    int n = sprintf(long_reply, "250-STARTTLS\r\n250-mail.domain1.com\r\n");
    for (int i = 0; i < more_lines; i++) n += sprintf(long_reply + n, "250-X-LINE-%u-%d\r\n", number, i);
    number++;
    sprintf(long_reply + n, "250 HELP\r\n");
    return say(&x->s, long_reply);
}

static int obey(struct session *x) {
    const char *l = x->line;
    if (!strncasecmp(l, "EHLO", 4)) return say_ehlo(x);
    if (!strncasecmp(l, "STARTTLS", 8)) { x->phase = UNDECIDED; return say(&x->s, "220 Ready to start TLS\r\n"); }
    if (!strncasecmp(l, "DATA", 4)) { x->phase = DATA; x->end_n = 2; return say(&x->s, "354 go ahead\r\n"); }
    if (!strncasecmp(l, "QUIT", 4)) { say(&x->s, "221 bye\r\n"); return -1; }
    return say(&x->s, "250 ok\r\n");
}
static int raw(struct session *x, const unsigned char *p, ssize_t n) {
    while (n && x->header_n < 8) { x->want = x->want << 8 | *p++; n--; x->header_n++; }
    x->got += n;
    if (x->header_n < 8 || x->got < x->want) return 0;
    x->header_n = 0; x->want = x->got = 0;
    return say(&x->s, "DONE");
}
static int feed(struct session *x, const char *p, ssize_t n) {
    static const char END[] = "\r\n.\r\n";
    const char *stop = p + n;
    while (p < stop) {
        if (x->phase == RAW) return raw(x, (const unsigned char *)p, stop - p);
        char c = *p++;
        if (x->phase == DATA) {
            if (c != END[x->end_n]) x->end_n = c == '\r';
            else if (++x->end_n == 5) { x->phase = COMMAND; if (say(&x->s, "250 queued\r\n")) return -1; }
            continue;
        }
        if (x->line_n < (int)sizeof x->line - 1) x->line[x->line_n++] = c;
        if (c != '\n') continue;
        x->line[x->line_n] = 0; x->line_n = 0;
        if (obey(x)) return -1;
        if (x->phase == UNDECIDED && p < stop) return -1; /* bytes behind STARTTLS */
    }
    return 0;
}
static int decide(struct session *x) {
    unsigned char first;
    ssize_t n = recv(x->s.fd, &first, 1, MSG_PEEK);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n <= 0) return -1;
    if (first != 0x16) { x->phase = RAW; return 0; }
    if (!sink_has_tls) return -1;
    begin_tls(&x->s, 1); x->phase = HANDSHAKE;
    return 0;
}
static int serve(struct session *x) {
    if (x->phase == UNDECIDED && decide(x)) return -1;
    if (x->phase == HANDSHAKE) {
        int done = SSL_do_handshake(x->s.tls);
        if (done != 1) return result_of(&x->s, done) < 0 ? -1 : 0;
        x->phase = COMMAND; x->line_n = 0;
    }
    for (;;) {
        ssize_t n = take(&x->s, chunk, sizeof chunk);
        if (n == 0) return 0;
        if (n < 0 || feed(x, chunk, n)) return -1;
        if (!x->s.tls) return 0; /* level-triggered: what is left wakes us again */
    }
}
static void sink(int port) {
    allow_many_files();
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&a, sizeof a)) die("bind");
    if (listen(listener, 65535)) die("listen");
    struct epoll_event e = {.events = EPOLLIN}, ready[BATCH];
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(poll_fd, ready, BATCH, -1);
        for (int i = 0; i < n; i++) {
            struct session *x = ready[i].data.ptr;
            if (x) { if (serve(x)) { end(&x->s); free(x); } continue; }
            int fd;
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                tune(fd);
                x = calloc(1, sizeof *x); x->s.fd = fd;
                watch(&x->s, x, EPOLLIN);
                say(&x->s, "220 mail.domain1.com ESMTP Service ready\r\n");
            }
        }
    }
}

/* ---------- the load ---------- */
enum step { BANNER, EHLO, STARTTLS, SHAKE, EHLO_INSIDE, MAIL, RCPT, DATA_ASKED, BODY, QUEUED, QUIT, RAW_BODY, HELD };
struct client { struct stream s; enum step step; uint64_t sent; double start, asked, ehlo; int n; char reply[REPLY]; };
static int port, mode_tls, mode_mail, mode_hold, mode_paced, sessions, well, failed, live, opening, repaired;
static uint64_t size;
static double *latency, *ehlo_latency;

static int dial(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct client *c = calloc(1, sizeof *c);
    c->start = now();
    c->s.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->s.fd < 0) die("socket");
    tune(c->s.fd);
    if (connect(c->s.fd, (void *)&a, sizeof a) && errno != EINPROGRESS) { close(c->s.fd); free(c); failed++; return -1; }
    watch(&c->s, c, EPOLLIN);
    live++; opening++;
    return 0;
}
static int send_body(struct client *c) {
    while (c->sent < size) {
        uint64_t left = size - c->sent;
        ssize_t n = give(&c->s, chunk, left < sizeof chunk ? left : sizeof chunk);
        if (n < 0) return -1;
        if (n == 0) { watch(&c->s, c, EPOLLIN | EPOLLOUT); return 0; }
        c->sent += n;
    }
    watch(&c->s, c, EPOLLIN);
    if (c->step != BODY) return 0;
    c->step = QUEUED;
    return say(&c->s, "\r\n.\r\n");
}
static int next(struct client *c, enum step step, const char *command) { c->step = step; return say(&c->s, command); }
static int reply(struct client *c) { /* -1: wrong; 0: go on; 1: the session is over and was right */
    static const char *const EXPECTED[] = {[BANNER] = "220", [EHLO] = "250", [STARTTLS] = "220", [EHLO_INSIDE] = "250", [MAIL] = "250",
                                           [RCPT] = "250", [DATA_ASKED] = "354", [QUEUED] = "250", [QUIT] = "221"};
    if (c->step > QUIT || !EXPECTED[c->step] || memcmp(c->reply, EXPECTED[c->step], 3)) return -1;
    switch (c->step) {
    case BANNER: c->asked = now(); return next(c, EHLO, "EHLO esa.com\r\n");
    case EHLO:
        c->ehlo = now() - c->asked;
        if (!strncmp(c->reply + 4, "mail.domain1.com", 16)) repaired++;
        if (!strstr(c->reply, "STARTTLS\r\n")) return -1;
        return mode_mail ? next(c, MAIL, "MAIL FROM:<a@esa.com>\r\n") : next(c, STARTTLS, "STARTTLS\r\n");
    case STARTTLS: {
        if (mode_hold) { c->step = HELD; return 1; }
        if (mode_tls) { c->step = SHAKE; begin_tls(&c->s, 0); return 0; }
        unsigned char header[8];
        for (int i = 0; i < 8; i++) header[i] = size >> (56 - 8 * i);
        c->step = RAW_BODY;
        return give(&c->s, header, 8) == 8 ? send_body(c) : -1;
    }
    case EHLO_INSIDE: return next(c, MAIL, "MAIL FROM:<a@esa.com>\r\n");
    case MAIL: return next(c, RCPT, "RCPT TO:<b@domain1.com>\r\n");
    case RCPT: return next(c, DATA_ASKED, "DATA\r\n");
    case DATA_ASKED: c->step = BODY; return send_body(c);
    case QUEUED: return next(c, QUIT, "QUIT\r\n");
    default: return 1; /* QUIT */
    }
}
static int whole(const char *p, int n) { /* is the last line one that ends a reply? */
    if (n < 4 || p[n - 1] != '\n') return 0;
    const char *last = memrchr(p, '\n', n - 1);
    last = last ? last + 1 : p;
    return last[3] != '-';
}
static int advance(struct client *c, uint32_t events) {
    if (c->step == SHAKE) {
        int done = SSL_do_handshake(c->s.tls);
        if (done != 1) return result_of(&c->s, done) < 0 ? -1 : 0;
        return next(c, EHLO_INSIDE, "EHLO esa.com\r\n");
    }
    if (events & EPOLLOUT && (c->step == BODY || c->step == RAW_BODY) && send_body(c)) return -1;
    if (!(events & ~EPOLLOUT)) return 0;
    for (;;) {
        ssize_t n = take(&c->s, c->reply + c->n, sizeof c->reply - 1 - c->n);
        if (n <= 0) return n;
        c->n += n; c->reply[c->n] = 0;
        if (c->step == RAW_BODY) { if (c->n >= 4) return !memcmp(c->reply, "DONE", 5) && c->sent == size ? 1 : -1; continue; }
        if (!whole(c->reply, c->n)) continue;
        int r = reply(c);
        c->n = 0;
        if (r || c->step == SHAKE) return r ? r : advance(c, 0);
        if (!c->s.tls) return 0;
    }
}
static int ascending(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return (x > y) - (x < y); }
static double at(const double *sorted, double share) { return well ? sorted[(int)((well - 1) * share)] * 1e3 : 0; }
static void load(int concurrency) {
    allow_many_files();
    latency = calloc(sessions, sizeof *latency); ehlo_latency = calloc(sessions, sizeof *ehlo_latency);
    for (size_t i = 0; i < sizeof chunk; i++) chunk[i] = i % 64 == 63 ? '\n' : i % 64 == 62 ? '\r' : 'a' + i % 26;
    struct epoll_event ready[BATCH];
    double t0 = now(), progress = t0;
    int started = 0;
    while (well + failed < sessions) {
        int due = mode_paced ? (int)((now() - t0) * concurrency) : sessions;
        for (; started < sessions && started < due && (mode_paced || (mode_hold ? opening : live) < concurrency); started++) dial();
        int n = epoll_wait(poll_fd, ready, BATCH, mode_paced ? 1 : 1000);
        if (n) progress = now();
        else if (now() - progress > GIVE_UP_SECONDS) { fprintf(stderr, "stalled: %d well, %d failed, %d live\n", well, failed, live); exit(3); }
        for (int i = 0; i < n; i++) {
            struct client *c = ready[i].data.ptr;
            if (c->step == HELD) { end(&c->s); live--; well--; failed++; c->step = QUIT; continue; } /* lost while held */
            int r = advance(c, ready[i].events);
            if (!r) continue;
            opening--;
            if (r > 0) { latency[well] = now() - c->start; ehlo_latency[well++] = c->ehlo; } else failed++;
            if (c->step == HELD) continue;
            end(&c->s); free(c); live--;
        }
    }
    double seconds = now() - t0;
    qsort(latency, well, sizeof *latency, ascending); qsort(ehlo_latency, well, sizeof *ehlo_latency, ascending);
    printf("{\"well\": %d, \"failed\": %d, \"greeting_first\": %d, \"seconds\": %.4f, \"p50\": %.4f, \"p90\": %.4f, \"p99\": %.4f, \"max\": %.4f, \"ehlo_p50\": %.4f}\n",
           well, failed, repaired, seconds, at(latency, .5), at(latency, .9), at(latency, .99), at(latency, 1), at(ehlo_latency, .5));
    fflush(stdout);
    if (mode_hold) while (getchar() != EOF) { }
}

int main(int n, char **argument) {
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (n >= 3 && !strcmp(argument[1], "sink")) {
        for (int i = 3; i < n; i++) {
            if (!strcmp(argument[i], "--good")) ehlo_reply = GOOD;
            else if (!strcmp(argument[i], "--lines") && i + 1 < n) more_lines = atoi(argument[++i]) % 1000;
            else if (!strcmp(argument[i], "--tls") && i + 2 < n) {
                tls_context = SSL_CTX_new(TLS_server_method());
                if (SSL_CTX_use_certificate_chain_file(tls_context, argument[i + 1]) != 1 || SSL_CTX_use_PrivateKey_file(tls_context, argument[i + 2], SSL_FILETYPE_PEM) != 1) {
                    fprintf(stderr, "no certificate in %s or no key in %s\n", argument[i + 1], argument[i + 2]); return 2;
                }
                SSL_CTX_set_num_tickets(tls_context, 0);
                sink_has_tls = 1; i += 2;
            }
        }
        if (tls_context) SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        sink(atoi(argument[2]));
    }
    if (n == 7 && !strcmp(argument[1], "load")) {
        const char *mode = argument[3];
        mode_paced = !strncmp(mode, "paced", 5);
        mode_tls = !strcmp(mode, "tls") || !strcmp(mode, "pacedtls");
        mode_mail = !strcmp(mode, "mail");
        mode_hold = !strcmp(mode, "hold");
        if (!(mode_paced || mode_tls || mode_mail || mode_hold || !strcmp(mode, "splice"))) { fprintf(stderr, "no mode %s\n", mode); return 2; }
        if (mode_tls) { tls_context = SSL_CTX_new(TLS_client_method()); SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER); }
        port = atoi(argument[2]); sessions = atoi(argument[4]); size = strtoull(argument[6], NULL, 10);
        load(atoi(argument[5]));
        return 0;
    }
    fprintf(stderr, "usage: smtpbench sink PORT [--good] [--tls CERTIFICATE KEY] [--lines N]\n       smtpbench load PORT splice|mail|tls|paced|pacedtls|hold SESSIONS CONCURRENCY SIZE\n");
    return 2;
}
