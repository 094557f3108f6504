#define _GNU_SOURCE 1

#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SAME_FIELD(ours, our_field, theirs, their_field)                                                           \
    _Static_assert(offsetof(struct ours, our_field) == offsetof(struct theirs, their_field) &&                     \
                       sizeof(((struct ours *)0)->our_field) == sizeof(((struct theirs *)0)->their_field),          \
                   #ours "." #our_field " differs from " #theirs "." #their_field)
#define SAME_SIZE(ours, theirs)                                                                                    \
    _Static_assert(sizeof(struct ours) == sizeof(struct theirs), #ours " differs from " #theirs)

SAME_SIZE(clinux_event, epoll_event);
SAME_FIELD(clinux_event, events, epoll_event, events);
SAME_FIELD(clinux_event, token, epoll_event, data.u64);
// Interest and Ready, in the target Reactor, have these as literals.
_Static_assert(EPOLLIN == 0x1 && EPOLLOUT == 0x4 && EPOLLERR == 0x8 && EPOLLHUP == 0x10 && EPOLLRDHUP == 0x2000 &&
                   EPOLLET == 1u << 31,
               "epoll's events differ");

SAME_SIZE(clinux_bytes, iovec);
SAME_FIELD(clinux_bytes, base, iovec, iov_base);
SAME_FIELD(clinux_bytes, length, iovec, iov_len);

SAME_SIZE(clinux_message, msghdr);
SAME_FIELD(clinux_message, address, msghdr, msg_name);
SAME_FIELD(clinux_message, address_length, msghdr, msg_namelen);
SAME_FIELD(clinux_message, parts, msghdr, msg_iov);
SAME_FIELD(clinux_message, part_count, msghdr, msg_iovlen);
SAME_FIELD(clinux_message, control, msghdr, msg_control);
SAME_FIELD(clinux_message, control_length, msghdr, msg_controllen);
SAME_FIELD(clinux_message, flags, msghdr, msg_flags);
SAME_SIZE(clinux_datagram, mmsghdr);
SAME_FIELD(clinux_datagram, header, mmsghdr, msg_hdr);
SAME_FIELD(clinux_datagram, length, mmsghdr, msg_len);

_Static_assert(sizeof(socklen_t) == sizeof(unsigned int), "socklen_t is unsigned int");

int clinux_epoll_create(void) { return epoll_create1(EPOLL_CLOEXEC); }

static int control(int epoll, int operation, int descriptor, unsigned int events, unsigned long long token) {
    struct epoll_event event = {.events = events, .data.u64 = token};
    return epoll_ctl(epoll, operation, descriptor, &event);
}

int clinux_epoll_add(int epoll, int descriptor, unsigned int events, unsigned long long token) {
    return control(epoll, EPOLL_CTL_ADD, descriptor, events, token);
}

int clinux_epoll_change(int epoll, int descriptor, unsigned int events, unsigned long long token) {
    return control(epoll, EPOLL_CTL_MOD, descriptor, events, token);
}

int clinux_epoll_remove(int epoll, int descriptor) { return control(epoll, EPOLL_CTL_DEL, descriptor, 0, 0); }

int clinux_epoll_add_edge(int epoll, int descriptor, unsigned long long token) {
    return control(epoll, EPOLL_CTL_ADD, descriptor, EPOLLIN | EPOLLET, token);
}

int clinux_epoll_wait(int epoll, struct clinux_event *events, int count, int milliseconds) {
    return epoll_wait(epoll, (struct epoll_event *)events, count, milliseconds);
}

int clinux_eventfd_create(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

int clinux_eventfd_add_one(int descriptor) { return eventfd_write(descriptor, 1); }

unsigned long long clinux_eventfd_take(int descriptor) {
    eventfd_t count = 0;
    return eventfd_read(descriptor, &count) == 0 ? count : 0;
}

int clinux_accept(int listener, void *address, unsigned int *length) {
    return accept4(listener, (struct sockaddr *)address, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

long clinux_receive(int descriptor, void *bytes, unsigned long count) {
    return syscall(SYS_recvfrom, descriptor, bytes, count, 0, NULL, NULL);
}

long clinux_send(int descriptor, const void *bytes, unsigned long count) {
    return syscall(SYS_sendto, descriptor, bytes, count, MSG_NOSIGNAL, NULL, 0);
}

int clinux_receive_datagrams(int descriptor, struct clinux_datagram *datagrams, unsigned int count) {
    return recvmmsg(descriptor, (struct mmsghdr *)datagrams, count, MSG_DONTWAIT, NULL);
}

int clinux_send_datagrams(int descriptor, struct clinux_datagram *datagrams, unsigned int count) {
    return sendmmsg(descriptor, (struct mmsghdr *)datagrams, count, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int clinux_note_arrivals(int descriptor) {
    int on = 1;
    return setsockopt(descriptor, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
}

_Static_assert(CMSG_SPACE(sizeof(struct timespec)) <= CLINUX_ARRIVAL_BYTES, "an arrival takes more room");

unsigned long long clinux_arrival(const struct clinux_datagram *datagram) {
    struct msghdr *header = (struct msghdr *)&datagram->header;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part != NULL; part = CMSG_NXTHDR(header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_TIMESTAMPNS) continue;
        struct timespec time;
        memcpy(&time, CMSG_DATA(part), sizeof time);
        if (time.tv_sec < 0) return 0;
        return (unsigned long long)time.tv_sec * 1000000000ull + (unsigned long long)time.tv_nsec;
    }
    return 0;
}

void clinux_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

const char *clinux_error_name(int number) { return strerrorname_np(number); }

const char *clinux_error_description(int number) { return strerrordesc_np(number); }

// A signal handler may be about to write while another thread stops watching, so the pipe is never closed: a closed
// and reused descriptor would get a byte that is not meant for it.
static int signal_pipe[2] = {-1, -1};
static _Atomic int signal_pipe_input = -1;
static struct sigaction previous_action[NSIG];

static void note_signal(int signal) {
    int saved = errno;
    unsigned char number = (unsigned char)signal;
    // A full pipe holds 65,536 signals that nobody has looked at; one more says nothing new.
    ssize_t written = write(atomic_load(&signal_pipe_input), &number, 1);
    (void)written;
    errno = saved;
}

int clinux_signal_pipe(void) {
    if (signal_pipe[0] < 0) {
        int ends[2];
        if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) return -1;
        signal_pipe[0] = ends[0];
        signal_pipe[1] = ends[1];
        atomic_store(&signal_pipe_input, ends[1]);
    }
    return signal_pipe[0];
}

int clinux_signal_watch(int signal) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = note_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    return sigaction(signal, &action, &previous_action[signal]);
}

int clinux_signal_restore(int signal) { return sigaction(signal, &previous_action[signal], NULL); }

int clinux_signal_ignore_pipe(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_IGN;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGPIPE, &action, NULL);
}
