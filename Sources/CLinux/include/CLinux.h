// What the Glibc overlay lacks of Linux: epoll, eventfd, accept4, batched datagrams, signals by a pipe, prefetch.
//
// This header includes no other, on purpose. A C type that two modules declare (timespec, fd_set) belongs to whichever
// Swift loads first, and then does not compile for whoever imports only the other one; so the system's headers stay in
// CLinux.c, types that Swift needs are declared again here, and CLinux.c asserts that they agree with the system's. A
// call costs a nanosecond or two beside a system call of some hundred. Wrappers set errno as what they wrap does, and
// return -1 where it fails.

#ifndef CLINUX_H
#define CLINUX_H

// struct epoll_event: what happened, and what the watcher said that it be told with it.
struct clinux_event {
    unsigned int events;
    unsigned long long token;
}
#if defined(__x86_64__)
__attribute__((packed))
#endif
;

// epoll_create1, closed on exec.
int clinux_epoll_create(void);
// epoll_ctl: watches a descriptor, level-triggered; changes what is watched for; forgets it.
int clinux_epoll_add(int epoll, int descriptor, unsigned int events, unsigned long long token);
int clinux_epoll_change(int epoll, int descriptor, unsigned int events, unsigned long long token);
int clinux_epoll_remove(int epoll, int descriptor);
// Watches for reading, edge-triggered: one event for each write to an eventfd, though nobody reads it.
int clinux_epoll_add_edge(int epoll, int descriptor, unsigned long long token);
// epoll_wait: the number of events, at most `count`; waits for ever where the timeout is -1.
int clinux_epoll_wait(int epoll, struct clinux_event *events, int count, int milliseconds);

// eventfd, non-blocking and closed on exec; adding one to its counter; and taking the counter, which is 0 after.
int clinux_eventfd_create(void);
int clinux_eventfd_add_one(int descriptor);
unsigned long long clinux_eventfd_take(int descriptor);

// struct iovec.
struct clinux_bytes {
    void *base;
    unsigned long length;
};

// struct msghdr.
struct clinux_message {
    void *address;
    unsigned int address_length;
    struct clinux_bytes *parts;
    unsigned long part_count;
    void *control;
    unsigned long control_length;
    // MSG_TRUNC where the datagram was longer than the room for it.
    int flags;
};

// struct mmsghdr: one datagram of a batch.
struct clinux_datagram {
    struct clinux_message header;
    // Bytes received or sent, filled by the kernel.
    unsigned int length;
};

// accept4, non-blocking and closed on exec. `address` has room for `*length` bytes.
int clinux_accept(int listener, void *address, unsigned int *length);

// recv, and send without SIGPIPE, as bare system calls: the C library's are points of cancellation, which in a process
// with threads costs two atomic operations a call. Nobody cancels threads here.
long clinux_receive(int descriptor, void *bytes, unsigned long count);
long clinux_send(int descriptor, const void *bytes, unsigned long count);

// recvmmsg and sendmmsg, neither waiting; the number of datagrams.
int clinux_receive_datagrams(int descriptor, struct clinux_datagram *datagrams, unsigned int count);
int clinux_send_datagrams(int descriptor, struct clinux_datagram *datagrams, unsigned int count);

// Has the kernel note when each datagram arrived. 0, or -1.
int clinux_note_arrivals(int descriptor);
// Room for that in a datagram's `control`, in bytes.
#define CLINUX_ARRIVAL_BYTES 32
// When a received datagram arrived, by the wall clock in nanoseconds since 1970; 0 where the kernel does not say.
unsigned long long clinux_arrival(const struct clinux_datagram *datagram);

// Names the calling thread; Linux keeps 15 bytes.
void clinux_name_thread(const char *name);

// "EADDRINUSE" and "Address already in use", or NULL where the number is unknown. Static text, never translated.
const char *clinux_error_name(int number);
const char *clinux_error_description(int number);

// The reading end of the process's signal pipe, made on the first call and open for ever; -1 on failure.
int clinux_signal_pipe(void);
// Has `signal` write its number, one byte, into the signal pipe; `clinux_signal_restore` undoes it. 0, or -1.
int clinux_signal_watch(int signal);
int clinux_signal_restore(int signal);
// Ignores SIGPIPE. 0, or -1.
int clinux_signal_ignore_pipe(void);

// Asks for the cache line at `address`, to be read soon or written soon. Any address will do.
static inline void clinux_prefetch(const void *address) { __builtin_prefetch(address, 0, 3); }
static inline void clinux_prefetch_for_write(const void *address) { __builtin_prefetch(address, 1, 3); }

// Tells the processor that this is a spinning loop.
static inline void clinux_spin_hint(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
