/* The client's hot loop: wait for sockets, receive with the kernel's time stamps, find the end of each HTTP response.
 *
 * One thread, which never holds Python's lock, reads all sockets of a process. Python hands it a socket once a request
 * is sent (`start`), is woken through an eventfd when a response has ended (`finished`), and takes what was received
 * (`take`): the head, the body without its framing, and when each part of the body arrived. `take` before the end
 * cancels. loadtest/client/connection.py has the same loop in Python, for hosts where this module is not built.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SCM_TIMESTAMPNS
#define SCM_TIMESTAMPNS 35 /* asm-generic/socket.h, SO_TIMESTAMPNS_OLD: a struct timespec of two native longs */
#endif

enum { BATCH = 256, MOST_READS = 8 };
static const uint32_t INTEREST = EPOLLIN | EPOLLRDHUP | EPOLLET;
/* A head longer than this is none; Python's http.client allows 100 lines of as much. */
enum { MOST_HEAD = 1 << 18 };
#define WAKE_UP UINT64_MAX

/* How an exchange ended; connection.py names them. */
enum { RUNNING, COMPLETE, CLOSED, GARBLED, NO_MEMORY };

/* Where in a response the next byte belongs. */
enum { HEAD, UNTIL_CLOSE, LENGTH, SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LF, END_LF };

typedef struct {
    char *data;
    size_t size, room;
} Buffer;

typedef struct {
    int64_t stamp_ns; /* the kernel's, 0 where it gave none */
    int64_t read_ns;
    int64_t body_end;
} Read;

typedef struct {
    int fd; /* -1: free */
    uint32_t generation;
    int end, error; /* error: errno of the receive that failed */
    const char *problem;
    int state, status, keep_alive;
    size_t line; /* start of the head's line that is being received */
    uint64_t left; /* bytes of the body or of the chunk */
    int digits;
    int trailer_bytes;
    uint64_t received;
    int lingers; /* its body has all, but not its end */
    Buffer head, body;
    Read *reads;
    size_t count, room;
} Slot;

typedef struct {
    int64_t until_ns; /* CLOCK_MONOTONIC */
    uint64_t key;
} Linger;

typedef struct {
    PyObject_HEAD
    pthread_t thread;
    pthread_mutex_t lock;
    int running;
    pid_t process; /* a forked one has no such thread */
    int epoll, event;
    size_t read_bytes;
    int64_t nap_ns;
    unsigned nap_from;
    atomic_int stop;
    atomic_uint active;
    Slot **slots; /* by number; a slot is never moved, nor freed before the receiver is */
    uint32_t slot_count;
    uint32_t *free_slots, *done;
    uint32_t free_count, done_count;
    char *scratch;
    int64_t linger_ns;
    Linger *lingers; /* the thread's own: a queue, first in, first out */
    size_t linger_first, linger_count, linger_room;
} Receiver;

static int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int append(Buffer *buffer, const char *data, size_t size) {
    if (buffer->room - buffer->size < size) {
        size_t room = buffer->room ? buffer->room : 1024;
        while (room - buffer->size < size)
            room *= 2;
        char *grown = realloc(buffer->data, room);
        if (grown == NULL)
            return -1;
        buffer->data = grown;
        buffer->room = room;
    }
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    return 0;
}

/* ---- HTTP ---- */

static int garbled(Slot *slot, const char *problem) {
    slot->end = GARBLED;
    slot->problem = problem;
    return -1;
}

static int is_token(unsigned char letter) { /* RFC 9110, 5.6.2 */
    return (letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
           (letter != 0 && strchr("!#$%&'*+-.^_`|~", letter) != NULL);
}

static int hex(unsigned char letter) {
    if (letter >= '0' && letter <= '9')
        return letter - '0';
    letter |= 32;
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

typedef struct {
    int minor, has_length, chunked, encoded, close, keep;
    uint64_t length;
} Framing;

/* Whether the comma-separated list has `word`. */
static int lists(const char *value, size_t size, const char *word) {
    size_t length = strlen(word), at = 0;
    while (at <= size) {
        const char *comma = memchr(value + at, ',', size - at);
        size_t end = comma ? (size_t)(comma - value) : size, begin = at, stop = end;
        while (begin < stop && (value[begin] == ' ' || value[begin] == '\t'))
            begin++;
        while (stop > begin && (value[stop - 1] == ' ' || value[stop - 1] == '\t'))
            stop--;
        if (stop - begin == length && strncasecmp(value + begin, word, length) == 0)
            return 1;
        at = end + 1;
    }
    return 0;
}

static int named(const char *name, size_t size, const char *wanted) {
    return size == strlen(wanted) && strncasecmp(name, wanted, size) == 0;
}

static int read_field(Slot *slot, Framing *framing, const char *line, size_t size) {
    const char *colon = memchr(line, ':', size);
    if (colon == NULL || colon == line)
        return garbled(slot, "a header line has no name");
    size_t name = (size_t)(colon - line), at;
    for (at = 0; at < name; at++)
        if (!is_token((unsigned char)line[at]))
            return garbled(slot, "a header's name has an invalid letter");
    const char *value = colon + 1;
    size_t length = size - name - 1;
    for (at = 0; at < length; at++) {
        unsigned char letter = (unsigned char)value[at];
        if ((letter < ' ' && letter != '\t') || letter == 127)
            return garbled(slot, "a header's value has an invalid letter");
    }
    while (length && (*value == ' ' || *value == '\t'))
        value++, length--;
    while (length && (value[length - 1] == ' ' || value[length - 1] == '\t'))
        length--;
    if (named(line, name, "content-length")) {
        if (framing->has_length)
            return garbled(slot, "Content-Length comes twice");
        uint64_t total = 0;
        if (length == 0 || length > 18)
            return garbled(slot, "Content-Length is no number of bytes");
        for (at = 0; at < length; at++) {
            if (value[at] < '0' || value[at] > '9')
                return garbled(slot, "Content-Length is no number of bytes");
            total = total * 10 + (uint64_t)(value[at] - '0');
        }
        framing->length = total;
        framing->has_length = 1;
    } else if (named(line, name, "transfer-encoding")) {
        const char *last = memrchr(value, ',', length);
        size_t after = last ? (size_t)(last - value) + 1 : 0;
        framing->encoded = 1;
        framing->chunked = lists(value + after, length - after, "chunked");
    } else if (named(line, name, "connection")) {
        framing->close |= lists(value, length, "close");
        framing->keep |= lists(value, length, "keep-alive");
    }
    return 0;
}

/* The head is whole: read it, and set how the body ends. */
static int read_head(Slot *slot) {
    const char *head = slot->head.data;
    size_t size = slot->head.size;
    Framing framing = {0};
    const char *end = memchr(head, '\n', size);
    size_t length = (size_t)(end - head) - 1;
    if (length < 12 || memcmp(head, "HTTP/1.", 7) != 0 || (head[7] != '0' && head[7] != '1') || head[8] != ' ' ||
        (length > 12 && head[12] != ' '))
        return garbled(slot, "the status line is not one of HTTP/1");
    framing.minor = head[7] - '0';
    int status = 0;
    for (int digit = 9; digit < 12; digit++) {
        if (head[digit] < '0' || head[digit] > '9')
            return garbled(slot, "the status is not a number");
        status = status * 10 + head[digit] - '0';
    }
    if (status < 100)
        return garbled(slot, "the status is not a number");
    for (size_t at = (size_t)(end - head) + 1; at < size;) {
        const char *line = head + at;
        const char *stop = memchr(line, '\n', size - at);
        size_t bytes = (size_t)(stop - line) - 1;
        at += bytes + 2;
        if (bytes == 0)
            break;
        if (read_field(slot, &framing, line, bytes) < 0)
            return -1;
    }
    if (framing.encoded && framing.has_length)
        return garbled(slot, "Content-Length comes with Transfer-Encoding");
    if (status < 200 && status != 101) { /* an interim response: RFC 9110, 15.2; the final one follows */
        slot->head.size = slot->line = 0;
        return 0;
    }
    slot->status = status;
    slot->keep_alive = framing.minor ? !framing.close : framing.keep && !framing.close;
    if (status == 101 || status == 204 || status == 304) {
        slot->end = COMPLETE;
        slot->keep_alive = slot->keep_alive && status != 101;
    } else if (framing.chunked) {
        slot->state = SIZE;
        slot->digits = 0;
        slot->left = 0;
    } else if (framing.encoded || !framing.has_length) {
        slot->state = UNTIL_CLOSE;
        slot->keep_alive = 0;
    } else {
        slot->state = LENGTH;
        slot->left = framing.length;
        if (framing.length == 0)
            slot->end = COMPLETE;
    }
    return 0;
}

/* Take bytes of the head; the number taken, or -1. */
static ptrdiff_t feed_head(Slot *slot, const char *data, size_t size) {
    static const char start[] = "HTTP/1.";
    size_t at = 0;
    while (at < size && slot->state == HEAD && slot->end == RUNNING) {
        const char *newline = memchr(data + at, '\n', size - at);
        size_t bytes = newline ? (size_t)(newline - data) - at + 1 : size - at;
        if (slot->head.size + bytes > MOST_HEAD)
            return garbled(slot, "the head has no end");
        size_t before = slot->head.size;
        if (append(&slot->head, data + at, bytes) < 0) {
            slot->end = NO_MEMORY;
            return -1;
        }
        at += bytes;
        /* Bytes that are no HTTP are known at once: more may never come. */
        if (before < sizeof start - 1) {
            size_t known = slot->head.size < sizeof start - 1 ? slot->head.size : sizeof start - 1;
            if (memcmp(slot->head.data, start, known) != 0)
                return garbled(slot, "it does not begin with HTTP/1");
        }
        if (newline == NULL)
            break;
        size_t length = slot->head.size - slot->line;
        const char *line = slot->head.data + slot->line;
        slot->line = slot->head.size;
        if (length < 2 || memchr(line, '\r', length) != line + length - 2)
            return garbled(slot, "a line of the head does not end in CR LF");
        if (length == 2 && read_head(slot) < 0)
            return -1;
    }
    return (ptrdiff_t)at;
}

/* Take received bytes. Sets slot->end where the response has ended, or is none. */
static void feed(Slot *slot, const char *data, size_t size) {
    size_t at = 0;
    while (at < size && slot->end == RUNNING) {
        unsigned char letter = (unsigned char)data[at];
        switch (slot->state) {
        case HEAD: {
            ptrdiff_t taken = feed_head(slot, data + at, size - at);
            if (taken < 0)
                return;
            at += (size_t)taken;
            break;
        }
        case UNTIL_CLOSE:
        case LENGTH:
        case DATA: {
            size_t bytes = size - at;
            if (slot->state != UNTIL_CLOSE && bytes > slot->left)
                bytes = (size_t)slot->left;
            if (append(&slot->body, data + at, bytes) < 0) {
                slot->end = NO_MEMORY;
                return;
            }
            at += bytes;
            if (slot->state == UNTIL_CLOSE)
                break;
            slot->left -= bytes;
            if (slot->left == 0) {
                if (slot->state == LENGTH)
                    slot->end = COMPLETE;
                else
                    slot->state = DATA_CR;
            }
            break;
        }
        case SIZE: {
            int digit = hex(letter);
            if (digit >= 0) {
                if (++slot->digits > 15) {
                    garbled(slot, "a chunk's size is too large");
                    return;
                }
                slot->left = slot->left * 16 + (uint64_t)digit;
                at++;
            } else if (slot->digits == 0) {
                garbled(slot, "a chunk's size is no number");
                return;
            } else {
                slot->state = EXTENSION;
                if (letter != '\r' && letter != ';' && letter != ' ' && letter != '\t') {
                    garbled(slot, "a chunk's size is no number");
                    return;
                }
            }
            break;
        }
        case EXTENSION:
            at++;
            if (letter == '\r')
                slot->state = SIZE_LF;
            else if ((letter < ' ' && letter != '\t') || ++slot->trailer_bytes > MOST_HEAD) {
                garbled(slot, "a chunk's extension is invalid");
                return;
            }
            break;
        case SIZE_LF:
            at++;
            if (letter != '\n') {
                garbled(slot, "a chunk's size has no line end");
                return;
            }
            slot->state = slot->left ? DATA : TRAILER;
            slot->digits = 0;
            break;
        case DATA_CR:
        case DATA_LF:
            at++;
            if (letter != (slot->state == DATA_CR ? '\r' : '\n')) {
                garbled(slot, "a chunk is longer than its size");
                return;
            }
            slot->state = slot->state == DATA_CR ? DATA_LF : SIZE;
            break;
        case TRAILER: /* digits counts the letters of the line */
            at++;
            if (++slot->trailer_bytes > MOST_HEAD) {
                garbled(slot, "the trailer has no end");
                return;
            }
            if (letter == '\r')
                slot->state = slot->digits ? TRAILER_LF : END_LF;
            else if (letter == '\n') {
                garbled(slot, "a trailer's line has no CR");
                return;
            } else
                slot->digits = 1;
            break;
        case TRAILER_LF:
        case END_LF:
            at++;
            if (letter != '\n') {
                garbled(slot, "a trailer's line has no line end");
                return;
            }
            if (slot->state == END_LF)
                slot->end = COMPLETE;
            else
                slot->state = TRAILER;
            slot->digits = 0;
            break;
        }
    }
    if (slot->end == COMPLETE && at < size)
        slot->keep_alive = 0; /* more came than was asked for */
}

/* ---- the thread ---- */

/* Receive once; returns whether more may lie there. The caller holds the lock. */
static int receive(Receiver *self, Slot *slot) {
    struct iovec where = {self->scratch, self->read_bytes};
    union {
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {
        .msg_iov = &where, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t size = recvmsg(slot->fd, &message, MSG_DONTWAIT);
    if (size <= 0) {
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
            return errno == EINTR;
        slot->error = size < 0 ? errno : 0;
        slot->end = size == 0 && slot->state == UNTIL_CLOSE ? COMPLETE : CLOSED;
        return 0;
    }
    Read read = {0, clock_ns(CLOCK_REALTIME), 0};
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part != NULL; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_TIMESTAMPNS &&
            part->cmsg_len == CMSG_LEN(sizeof(struct timespec))) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(part), sizeof stamp);
            read.stamp_ns = (int64_t)stamp.tv_sec * 1000000000 + stamp.tv_nsec;
        }
    }
    slot->received += (uint64_t)size;
    feed(slot, self->scratch, (size_t)size);
    read.body_end = (int64_t)slot->body.size;
    if (slot->count == slot->room) {
        size_t room = slot->room ? slot->room * 2 : 64;
        Read *grown = realloc(slot->reads, room * sizeof *grown);
        if (grown == NULL) {
            slot->end = NO_MEMORY;
            return 0;
        }
        slot->reads = grown;
        slot->room = room;
    }
    slot->reads[slot->count++] = read;
    return (size_t)size == self->read_bytes;
}

/* Whether a body ends in the event [DONE], after which nothing comes but the body's end, and with some servers not even
 * that. */
static int is_done(const Buffer *body) {
    static const char done[] = "[DONE]";
    const size_t length = sizeof done - 1;
    const char *start = body->data;
    size_t end = body->size;
    while (end && (start[end - 1] == '\n' || start[end - 1] == '\r' || start[end - 1] == ' '))
        end--;
    if (end < length || memcmp(start + end - length, done, length) != 0)
        return 0;
    end -= length;
    if (end && start[end - 1] == ' ')
        end--;
    return end >= 5 && memcmp(start + end - 5, "data:", 5) == 0 &&
           (end == 5 || start[end - 6] == '\n' || start[end - 6] == '\r');
}

/* An exchange has ended. The caller holds the lock. Whether Python must be woken. */
static int finish(Receiver *self, uint32_t place) {
    epoll_ctl(self->epoll, EPOLL_CTL_DEL, self->slots[place]->fd, NULL);
    self->done[self->done_count++] = place; /* has room for all slots */
    atomic_fetch_sub(&self->active, 1);
    return self->done_count == 1;
}

static int is_running(const Receiver *self, uint64_t key) {
    const Slot *slot = self->slots[(uint32_t)key];
    return slot->fd >= 0 && slot->generation == (uint32_t)(key >> 32) && slot->end == RUNNING;
}

/* Wait a little for the body's end, and take the response as whole without it. */
static void linger(Receiver *self, uint64_t key) {
    if (self->linger_first + self->linger_count == self->linger_room) {
        memmove(self->lingers, self->lingers + self->linger_first, self->linger_count * sizeof *self->lingers);
        self->linger_first = 0;
    }
    if (self->linger_count == self->linger_room) {
        size_t room = self->linger_room ? self->linger_room * 2 : 64;
        Linger *grown = realloc(self->lingers, room * sizeof *grown);
        if (grown == NULL)
            return; /* it then waits for the timeout */
        self->lingers = grown;
        self->linger_room = room;
    }
    self->lingers[self->linger_first + self->linger_count++] = (Linger){clock_ns(CLOCK_MONOTONIC) + self->linger_ns, key};
}

/* End what has lingered long enough; whether Python must be woken. */
static int end_lingering(Receiver *self, int *timeout_ms) {
    int wake = 0;
    *timeout_ms = -1;
    while (self->linger_count) {
        Linger first = self->lingers[self->linger_first];
        int64_t left = first.until_ns - clock_ns(CLOCK_MONOTONIC);
        pthread_mutex_lock(&self->lock);
        int running = is_running(self, first.key);
        if (running && left <= 0) {
            Slot *slot = self->slots[(uint32_t)first.key];
            slot->end = COMPLETE;
            slot->keep_alive = 0;
            wake |= finish(self, (uint32_t)first.key);
        }
        pthread_mutex_unlock(&self->lock);
        if (running && left > 0) {
            *timeout_ms = (int)(left / 1000000) + 1;
            break;
        }
        self->linger_first++;
        self->linger_count--;
    }
    if (self->linger_count == 0)
        self->linger_first = 0;
    return wake;
}

static void *run(void *argument) {
    Receiver *self = argument;
    struct epoll_event events[BATCH];
    while (!atomic_load(&self->stop)) {
        int timeout_ms;
        int wake = end_lingering(self, &timeout_ms);
        int count = epoll_wait(self->epoll, events, BATCH, wake ? 0 : timeout_ms);
        for (int number = 0; number < count; number++) {
            uint64_t key = events[number].data.u64;
            if (key == WAKE_UP)
                continue; /* told to stop */
            uint32_t place = (uint32_t)key;
            int reads = 0;
            pthread_mutex_lock(&self->lock);
            Slot *slot = self->slots[place];
            int lingers = 0;
            if (is_running(self, key)) {
                /* Edge-triggered: a short read has emptied the socket, but the end of the stream may follow it. */
                int more = receive(self, slot) || (events[number].events & ~(uint32_t)EPOLLIN);
                while (more && slot->end == RUNNING && reads++ < MOST_READS)
                    more = receive(self, slot);
                if (slot->end == RUNNING && more) { /* others first */
                    struct epoll_event again = {.events = INTEREST, .data.u64 = key};
                    epoll_ctl(self->epoll, EPOLL_CTL_MOD, slot->fd, &again);
                }
                if (slot->end != RUNNING)
                    wake |= finish(self, place);
                else if (!slot->lingers && is_done(&slot->body))
                    lingers = slot->lingers = 1;
            }
            pthread_mutex_unlock(&self->lock);
            if (lingers)
                linger(self, key);
        }
        if (wake) {
            uint64_t one = 1;
            ssize_t written = write(self->event, &one, sizeof one);
            (void)written;
        }
        /* With many streams, let some more become readable: one wake-up then serves them all. The time that counts is
         * the kernel's stamp. */
        if (self->nap_ns && atomic_load(&self->active) >= self->nap_from) {
            struct timespec nap = {0, self->nap_ns};
            nanosleep(&nap, NULL);
        }
    }
    return NULL;
}

/* ---- Python ---- */

static void clear(Slot *slot) {
    free(slot->head.data);
    free(slot->body.data);
    free(slot->reads);
    uint32_t generation = slot->generation;
    memset(slot, 0, sizeof *slot);
    slot->generation = generation + 1;
    slot->fd = -1;
}

static void stop(Receiver *self) {
    if (!self->running)
        return;
    self->running = 0;
    if (getpid() != self->process)
        return;
    atomic_store(&self->stop, 1);
    int wake = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = WAKE_UP};
    if (wake >= 0)
        epoll_ctl(self->epoll, EPOLL_CTL_ADD, wake, &event);
    Py_BEGIN_ALLOW_THREADS
    pthread_join(self->thread, NULL);
    Py_END_ALLOW_THREADS
    if (wake >= 0)
        close(wake);
}

static PyObject *receiver_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"read_bytes", "nap_us", "nap_from", "linger_ms", NULL};
    Py_ssize_t read_bytes = 8192;
    int nap_us = 0, linger_ms = 100;
    unsigned nap_from = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|niIi", names, &read_bytes, &nap_us, &nap_from, &linger_ms))
        return NULL;
    if (read_bytes < 1 || nap_us < 0 || nap_us > 100000 || linger_ms < 0) {
        PyErr_SetString(PyExc_ValueError, "read_bytes must be 1 and up, nap_us 0 to 100000, linger_ms 0 and up");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Receiver *self = (Receiver *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->epoll = self->event = -1;
    self->read_bytes = (size_t)read_bytes;
    self->nap_ns = (int64_t)nap_us * 1000;
    self->nap_from = nap_from;
    self->linger_ns = (int64_t)linger_ms * 1000000;
    pthread_mutex_init(&self->lock, NULL);
    self->scratch = malloc(self->read_bytes);
    if (self->scratch == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    self->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->epoll < 0 || self->event < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    sigset_t all, before; /* signals are Python's, in its own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&self->thread, NULL, run, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        errno = failed;
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    pthread_setname_np(self->thread, "receiver");
    self->running = 1;
    self->process = getpid();
    return (PyObject *)self;
}

static void receiver_dealloc(PyObject *object) {
    Receiver *self = (Receiver *)object;
    PyTypeObject *type = Py_TYPE(object);
    stop(self);
    for (uint32_t place = 0; place < self->slot_count; place++) {
        clear(self->slots[place]);
        free(self->slots[place]);
    }
    free(self->slots);
    free(self->free_slots);
    free(self->done);
    free(self->scratch);
    free(self->lingers);
    if (self->epoll >= 0)
        close(self->epoll);
    if (self->event >= 0)
        close(self->event);
    pthread_mutex_destroy(&self->lock);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* Room for one more slot. The caller holds the lock. */
static int grow(Receiver *self) {
    uint32_t count = self->slot_count ? self->slot_count * 2 : 64;
    Slot **slots = realloc(self->slots, count * sizeof *slots);
    if (slots != NULL)
        self->slots = slots;
    uint32_t *free_slots = realloc(self->free_slots, count * sizeof *free_slots);
    if (free_slots != NULL)
        self->free_slots = free_slots;
    uint32_t *done = realloc(self->done, count * sizeof *done);
    if (done != NULL)
        self->done = done;
    if (slots == NULL || free_slots == NULL || done == NULL)
        return -1;
    while (self->slot_count < count) {
        Slot *slot = calloc(1, sizeof *slot);
        if (slot == NULL)
            return self->free_count ? 0 : -1;
        slot->fd = -1;
        self->slots[self->slot_count] = slot;
        self->free_slots[self->free_count++] = self->slot_count++;
    }
    return 0;
}

static PyObject *receiver_start(PyObject *object, PyObject *argument) {
    Receiver *self = (Receiver *)object;
    long fd = PyLong_AsLong(argument);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    if (fd < 0 || fd > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "not a file descriptor");
        return NULL;
    }
    if (!self->running) {
        PyErr_SetString(PyExc_ValueError, "the receiver is closed");
        return NULL;
    }
    pthread_mutex_lock(&self->lock);
    if (self->free_count == 0 && grow(self) < 0) {
        pthread_mutex_unlock(&self->lock);
        return PyErr_NoMemory();
    }
    uint32_t place = self->free_slots[--self->free_count];
    Slot *slot = self->slots[place];
    slot->fd = (int)fd;
    uint64_t key = (uint64_t)slot->generation << 32 | place;
    atomic_fetch_add(&self->active, 1);
    pthread_mutex_unlock(&self->lock);
    struct epoll_event event = {.events = INTEREST, .data.u64 = key};
    if (epoll_ctl(self->epoll, EPOLL_CTL_ADD, (int)fd, &event) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        pthread_mutex_lock(&self->lock);
        clear(slot);
        self->free_slots[self->free_count++] = place;
        atomic_fetch_sub(&self->active, 1);
        pthread_mutex_unlock(&self->lock);
        return NULL;
    }
    return PyLong_FromUnsignedLong(place);
}

static PyObject *receiver_finished(PyObject *object, PyObject *unused) {
    Receiver *self = (Receiver *)object;
    (void)unused;
    uint64_t count;
    ssize_t size = read(self->event, &count, sizeof count);
    (void)size;
    pthread_mutex_lock(&self->lock);
    uint32_t total = self->done_count;
    uint32_t *done = malloc((total ? total : 1) * sizeof *done);
    if (done != NULL) {
        memcpy(done, self->done, total * sizeof *done);
        self->done_count = 0;
    }
    pthread_mutex_unlock(&self->lock);
    if (done == NULL)
        return PyErr_NoMemory();
    PyObject *list = PyList_New(total);
    for (uint32_t at = 0; list != NULL && at < total; at++) {
        PyObject *number = PyLong_FromUnsignedLong(done[at]);
        if (number == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, at, number);
    }
    free(done);
    return list;
}

/* (times of the body's parts, their ends, lags) as bytes of int64. */
static int tell_reads(Slot *slot, int64_t offset, PyObject **times, PyObject **ends, PyObject **lags, int *stamped) {
    size_t parts = 0, with_stamp = 0;
    int64_t before = 0;
    for (size_t at = 0; at < slot->count; at++) {
        parts += slot->reads[at].body_end > before;
        before = slot->reads[at].body_end;
        with_stamp += slot->reads[at].stamp_ns != 0;
    }
    *times = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(parts * sizeof(int64_t)));
    *ends = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(parts * sizeof(int64_t)));
    *lags = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(with_stamp * sizeof(int64_t)));
    if (*times == NULL || *ends == NULL || *lags == NULL)
        return -1;
    char *time = PyBytes_AsString(*times), *end = PyBytes_AsString(*ends), *lag = PyBytes_AsString(*lags);
    before = 0;
    for (size_t at = 0; at < slot->count; at++) {
        Read *read = &slot->reads[at];
        if (read->stamp_ns) {
            int64_t late = read->read_ns > read->stamp_ns ? read->read_ns - read->stamp_ns : 0;
            memcpy(lag, &late, sizeof late);
            lag += sizeof late;
        }
        if (read->body_end > before) {
            int64_t arrived = (read->stamp_ns ? read->stamp_ns : read->read_ns) + offset;
            memcpy(time, &arrived, sizeof arrived);
            memcpy(end, &read->body_end, sizeof read->body_end);
            time += sizeof arrived;
            end += sizeof arrived;
            before = read->body_end;
        }
    }
    *stamped = slot->count > 0 && with_stamp == slot->count;
    return 0;
}

static PyObject *receiver_take(PyObject *object, PyObject *args) {
    Receiver *self = (Receiver *)object;
    unsigned int place;
    long long offset = 0;
    if (!PyArg_ParseTuple(args, "I|L", &place, &offset))
        return NULL;
    pthread_mutex_lock(&self->lock);
    if (place >= self->slot_count || self->slots[place]->fd < 0) {
        pthread_mutex_unlock(&self->lock);
        PyErr_SetString(PyExc_ValueError, "no such exchange");
        return NULL;
    }
    Slot *slot = self->slots[place];
    if (slot->end == RUNNING) {
        epoll_ctl(self->epoll, EPOLL_CTL_DEL, slot->fd, NULL);
        atomic_fetch_sub(&self->active, 1);
    } else { /* nobody may have asked for it */
        for (uint32_t at = 0; at < self->done_count; at++)
            if (self->done[at] == place) {
                self->done[at] = self->done[--self->done_count];
                break;
            }
    }
    Slot taken = *slot;
    slot->head.data = slot->body.data = NULL;
    slot->reads = NULL;
    clear(slot);
    pthread_mutex_unlock(&self->lock);

    PyObject *times = NULL, *ends = NULL, *lags = NULL, *result = NULL;
    int stamped = 0;
    if (tell_reads(&taken, offset, &times, &ends, &lags, &stamped) == 0)
        result = Py_BuildValue("(iiziOOKy#y#OOO)", taken.end, taken.error, taken.problem, taken.status,
                               taken.keep_alive ? Py_True : Py_False, stamped ? Py_True : Py_False, (unsigned long long)taken.received,
                               taken.head.data ? taken.head.data : "", (Py_ssize_t)taken.head.size,
                               taken.body.data ? taken.body.data : "", (Py_ssize_t)taken.body.size, ends, times, lags);
    Py_XDECREF(times);
    Py_XDECREF(ends);
    Py_XDECREF(lags);
    taken.generation = 0;
    clear(&taken);
    pthread_mutex_lock(&self->lock);
    self->free_slots[self->free_count++] = place;
    pthread_mutex_unlock(&self->lock);
    return result;
}

static PyObject *receiver_fileno(PyObject *object, PyObject *unused) {
    (void)unused;
    return PyLong_FromLong(((Receiver *)object)->event);
}

static PyObject *receiver_close(PyObject *object, PyObject *unused) {
    (void)unused;
    Receiver *self = (Receiver *)object;
    stop(self);
    if (self->epoll >= 0)
        close(self->epoll);
    if (self->event >= 0)
        close(self->event);
    self->epoll = self->event = -1;
    Py_RETURN_NONE;
}

static PyMethodDef receiver_methods[] = {
    {"start", receiver_start, METH_O, "start(fd): receive a response on a socket; returns the exchange's number."},
    {"finished", receiver_finished, METH_NOARGS, "finished(): the numbers of the exchanges that have ended since."},
    {"take", receiver_take, METH_VARARGS,
     "take(number, offset_ns=0): end an exchange, whether or not its response has. Returns (end, errno, problem, status, "
     "keep_alive, stamped, received, head, body, ends, times, lags); the last three are int64 in native order."},
    {"fileno", receiver_fileno, METH_NOARGS, "fileno(): readable when `finished` has something to say."},
    {"close", receiver_close, METH_NOARGS, "close(): stop the thread."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot receiver_slots[] = {
    {Py_tp_new, receiver_new},
    {Py_tp_dealloc, receiver_dealloc},
    {Py_tp_methods, receiver_methods},
    {Py_tp_doc, "Receiver(read_bytes=8192, nap_us=0, nap_from=1, linger_ms=100): a thread that receives HTTP responses. With nap_from "
                 "streams and up it rests nap_us between two polls. It waits linger_ms for the end of a body after [DONE]."},
    {0, NULL},
};

static PyType_Spec receiver_spec = {
    "headroom_receiver.Receiver", sizeof(Receiver), 0, Py_TPFLAGS_DEFAULT, receiver_slots};

static int module_exec(PyObject *module) {
    PyObject *type = PyType_FromSpec(&receiver_spec);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddObjectRef(module, "Receiver", type);
    Py_DECREF(type);
    return failed;
}

/* ---- server-sent events ---- */

/* A reader of one event's JSON. It accepts less than a JSON decoder does: what it does not know is Python's to read. */
typedef struct {
    const unsigned char *at, *end;
    int depth;
    const unsigned char *text; /* the delta's, as it is written */
    size_t text_size, decoded_size;
    size_t decoded; /* bytes in UTF-8 of the last string, its escapes replaced */
} Json;

static int skip_value(Json *json);

static void skip_blanks(Json *json) {
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\t'))
        json->at++;
}

static int take_letter(Json *json, unsigned char letter) {
    skip_blanks(json);
    if (json->at >= json->end || *json->at != letter)
        return 0;
    json->at++;
    return 1;
}

/* Skip a string; its contents as they are written are set. Escapes of surrogates are left to Python. */
static int skip_string(Json *json, const unsigned char **text, size_t *size) {
    if (!take_letter(json, '"'))
        return 0;
    const unsigned char *at = json->at, *end = json->end;
    size_t saved = 0; /* bytes by which escapes are longer than what they stand for */
    *text = at;
    while (at < end && *at != '"') {
        unsigned char letter = *at++;
        if (letter < ' ')
            return 0;
        if (letter == '\\') {
            if (at >= end)
                return 0;
            if (*at == 'u') {
                if (end - at < 5)
                    return 0;
                for (int digit = 1; digit < 5; digit++)
                    if (hex(at[digit]) < 0)
                        return 0;
                if (hex(at[1]) == 13 && hex(at[2]) >= 8)
                    return 0;
                int high = hex(at[1]) << 4 | hex(at[2]);
                saved += high >= 8 ? 3 : high || hex(at[3]) >= 8 ? 4 : 5;
                at += 5;
            } else if (strchr("\"\\/bfnrt", *at) != NULL && *at != 0) {
                saved++;
                at++;
            } else
                return 0;
        } else if (letter >= 0x80) { /* UTF-8: RFC 3629, 4 */
            int more = letter >= 0xc2 && letter < 0xe0 ? 1 : letter >= 0xe0 && letter < 0xf0 ? 2 : 3;
            if (letter < 0xc2 || letter > 0xf4 || end - at < more)
                return 0;
            if ((letter == 0xe0 && at[0] < 0xa0) || (letter == 0xed && at[0] > 0x9f) || (letter == 0xf0 && at[0] < 0x90) ||
                (letter == 0xf4 && at[0] > 0x8f))
                return 0;
            while (more--)
                if ((*at++ & 0xc0) != 0x80)
                    return 0;
        }
    }
    if (at >= end)
        return 0;
    *size = (size_t)(at - *text);
    json->decoded = *size - saved;
    json->at = at + 1;
    return 1;
}

static int skip_word(Json *json, const char *word) {
    size_t size = strlen(word);
    skip_blanks(json);
    if ((size_t)(json->end - json->at) < size || memcmp(json->at, word, size) != 0)
        return 0;
    json->at += size;
    return 1;
}

static int skip_digits(Json *json) {
    const unsigned char *start = json->at;
    while (json->at < json->end && *json->at >= '0' && *json->at <= '9')
        json->at++;
    return (int)(json->at - start);
}

static int skip_number(Json *json) {
    if (*json->at == '-')
        json->at++;
    const unsigned char *start = json->at;
    int digits = skip_digits(json);
    if (digits == 0 || digits > 15 || (*start == '0' && digits > 1))
        return 0;
    if (json->at < json->end && *json->at == '.') {
        json->at++;
        if (skip_digits(json) == 0)
            return 0;
    }
    if (json->at < json->end && (*json->at | 32) == 'e')
        return 0;
    return 1;
}

/* Skip an object or an array of any values. */
static int skip_container(Json *json, int is_object) {
    const unsigned char *text;
    size_t size;
    unsigned char close = is_object ? '}' : ']';
    if (++json->depth > 16)
        return 0;
    json->at++;
    if (!take_letter(json, close)) {
        do {
            if (is_object && !(skip_string(json, &text, &size) && take_letter(json, ':')))
                return 0;
            if (!skip_value(json))
                return 0;
        } while (take_letter(json, ','));
        if (!take_letter(json, close))
            return 0;
    }
    json->depth--;
    return 1;
}

static int skip_value(Json *json) {
    const unsigned char *text;
    size_t size;
    skip_blanks(json);
    if (json->at >= json->end)
        return 0;
    switch (*json->at) {
    case '{':
    case '[':
        return skip_container(json, *json->at == '{');
    case '"':
        return skip_string(json, &text, &size);
    case 't':
        return skip_word(json, "true");
    case 'f':
        return skip_word(json, "false");
    case 'n':
        return skip_word(json, "null");
    default:
        return skip_number(json);
    }
}

static int is_key(const unsigned char *text, size_t size, const char *key) {
    return size == strlen(key) && memcmp(text, key, size) == 0;
}

/* Skip the delta's text, which is not empty. */
static int skip_text(Json *json) {
    if (!skip_string(json, &json->text, &json->text_size))
        return 0;
    json->decoded_size = json->decoded;
    return json->text_size > 0;
}

/* Skip a delta that is text and nothing else. */
static int skip_delta(Json *json) {
    const unsigned char *text;
    size_t size;
    int content = 0;
    if (!take_letter(json, '{'))
        return 0;
    do {
        if (!skip_string(json, &text, &size) || memchr(text, '\\', size) != NULL || !take_letter(json, ':'))
            return 0;
        if (is_key(text, size, "content")) {
            if (content++ || !skip_text(json))
                return 0;
        } else if (is_key(text, size, "role")) {
            if (!skip_value(json))
                return 0;
        } else if (!skip_word(json, "null")) /* it may be output of another kind */
            return 0;
    } while (take_letter(json, ','));
    return content && take_letter(json, '}');
}

/* Skip a choice that is one delta of text, or one part of a completion's, and does not end the stream. */
static int skip_choice(Json *json) {
    const unsigned char *text;
    size_t size;
    int output = 0;
    if (!take_letter(json, '{'))
        return 0;
    do {
        if (!skip_string(json, &text, &size) || memchr(text, '\\', size) != NULL || !take_letter(json, ':'))
            return 0;
        if (is_key(text, size, "delta")) {
            if (output++ || !skip_delta(json))
                return 0;
        } else if (is_key(text, size, "text")) {
            if (output++ || !skip_text(json))
                return 0;
        } else if (is_key(text, size, "finish_reason") || is_key(text, size, "message")) {
            if (!skip_word(json, "null"))
                return 0;
        } else if (is_key(text, size, "index")) { /* of several choices, the others are Python's to count */
            if (!skip_word(json, "0") || (json->at < json->end && strchr(",} ", *json->at) == NULL))
                return 0;
        } else if (!skip_value(json))
            return 0;
    } while (take_letter(json, ','));
    return output && take_letter(json, '}');
}

/* A plain event: most of a stream's events differ from it in their text only. */
typedef struct {
    const char *head, *tail; /* up to the text, and from its closing quote on */
    size_t before, after;
} Pattern;

/* Whether an event is `pattern` with another text: the bytes of the text in UTF-8, else 0. */
static size_t is_like(const char *data, size_t length, const Pattern *pattern) {
    const unsigned char *text;
    size_t size, before = pattern->before, after = pattern->after;
    if (before == 0 || length <= before + after || memcmp(data, pattern->head, before) != 0 ||
        memcmp(data + length - after, pattern->tail, after) != 0)
        return 0;
    Json json = {(const unsigned char *)data + before - 1, (const unsigned char *)data + length, 0, NULL, 0, 0, 0};
    return skip_string(&json, &text, &size) && size == length - before - after ? json.decoded : 0;
}

/* Whether an event is one delta of text and nothing else that the load test looks at: the bytes of the text in UTF-8,
 * else 0. */
static size_t is_plain(const char *data, size_t length, Pattern *pattern) {
    Json json = {(const unsigned char *)data, (const unsigned char *)data + length, 0, NULL, 0, 0, 0};
    const unsigned char *text;
    size_t size;
    int choices = 0;
    if (!take_letter(&json, '{'))
        return 0;
    do {
        if (!skip_string(&json, &text, &size) || memchr(text, '\\', size) != NULL || !take_letter(&json, ':'))
            return 0;
        if (is_key(text, size, "choices")) {
            if (choices++ || !take_letter(&json, '[') || !skip_choice(&json) || !take_letter(&json, ']'))
                return 0;
        } else if (is_key(text, size, "usage") || is_key(text, size, "error") || is_key(text, size, "message")) {
            if (!skip_word(&json, "null"))
                return 0;
        } else if (is_key(text, size, "object")) {
            if (!skip_string(&json, &text, &size) || is_key(text, size, "error") || memchr(text, '\\', size) != NULL)
                return 0;
        } else if (!skip_value(&json))
            return 0;
    } while (take_letter(&json, ','));
    if (!choices || !take_letter(&json, '}'))
        return 0;
    skip_blanks(&json);
    if (json.at != json.end)
        return 0;
    const char *written = (const char *)json.text;
    *pattern = (Pattern){data, written + json.text_size, (size_t)(written - data), 0};
    pattern->after = length - pattern->before - json.text_size;
    return json.decoded_size;
}

/* Split a body into events of one line. The number of events, or -1 where a line is anything else. */
static Py_ssize_t split(const char *body, size_t size, size_t *starts, size_t *stops) {
    Py_ssize_t count = 0;
    for (size_t at = 0; at < size; count++) {
        if (size - at < 8 || memcmp(body + at, "data: ", 6) != 0)
            return -1;
        const char *newline = memchr(body + at, '\n', size - at);
        if (newline == NULL)
            return -1;
        size_t stop = (size_t)(newline - body);
        if (stop + 1 >= size || body[stop + 1] != '\n' || memchr(body + at, '\r', stop - at) != NULL)
            return -1;
        starts[count] = at + 6;
        stops[count] = stop;
        at = stop + 2;
    }
    return count;
}

static PyObject *scan_events(PyObject *module, PyObject *args) {
    (void)module;
    const char *body, *ends, *times;
    Py_ssize_t size, ends_size, times_size;
    if (!PyArg_ParseTuple(args, "y#y#y#", &body, &size, &ends, &ends_size, &times, &times_size))
        return NULL;
    size_t parts = (size_t)ends_size / sizeof(int64_t), most = (size_t)size / 8 + 1;
    if (ends_size != times_size || (size_t)ends_size % sizeof(int64_t) != 0) {
        PyErr_SetString(PyExc_ValueError, "ends and times must be as many int64");
        return NULL;
    }
    size_t *starts = malloc(2 * most * sizeof *starts);
    if (starts == NULL)
        return PyErr_NoMemory();
    size_t *stops = starts + most;
    Py_ssize_t count = split(body, (size_t)size, starts, stops);
    if (count < 0) {
        free(starts);
        Py_RETURN_NONE;
    }
    PyObject *result = NULL, *others = PyList_New(0);
    PyObject *arrivals = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(int64_t));
    PyObject *plain = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(int32_t));
    if (others == NULL || arrivals == NULL || plain == NULL)
        goto end;
    char *arrival = PyBytes_AsString(arrivals), *text_bytes = PyBytes_AsString(plain);
    size_t part = 0;
    Pattern pattern = {0};
    for (Py_ssize_t event = 0; event < count; event++) {
        int64_t end = 0;
        while (part < parts) { /* the part that holds the event's last byte */
            memcpy(&end, ends + part * sizeof end, sizeof end);
            if (end >= (int64_t)stops[event] + 2)
                break;
            part++;
        }
        if (part == parts) {
            PyErr_SetString(PyExc_ValueError, "the body has more bytes than its parts");
            goto end;
        }
        memcpy(arrival + event * (Py_ssize_t)sizeof(int64_t), times + part * sizeof(int64_t), sizeof(int64_t));
        const char *data = body + starts[event];
        size_t length = stops[event] - starts[event];
        size_t found = is_like(data, length, &pattern);
        int32_t text = (int32_t)(found ? found : is_plain(data, length, &pattern));
        memcpy(text_bytes + event * (Py_ssize_t)sizeof text, &text, sizeof text);
        if (!text) {
            PyObject *other = Py_BuildValue("(ny#)", event, data, (Py_ssize_t)length);
            if (other == NULL || PyList_Append(others, other) < 0) {
                Py_XDECREF(other);
                goto end;
            }
            Py_DECREF(other);
        }
    }
    result = PyTuple_Pack(3, arrivals, plain, others);
end:
    free(starts);
    Py_XDECREF(others);
    Py_XDECREF(arrivals);
    Py_XDECREF(plain);
    return result;
}

static PyMethodDef module_methods[] = {
    {"scan_events", scan_events, METH_VARARGS,
     "scan_events(body, ends, times): None where the body is not whole events of one line each; else (when each event "
     "arrived, as int64; per event, as int32, the bytes of its text in UTF-8 where it is a delta of text and nothing "
     "else, 0 for the others; the others, each with its number). Parts of the body end at `ends` and arrived at `times`, both int64."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "headroom_receiver", "Receives HTTP responses in a thread.", 0, module_methods, module_slots, NULL, NULL,
    NULL};

PyMODINIT_FUNC PyInit_headroom_receiver(void) { return PyModuleDef_Init(&module); }
