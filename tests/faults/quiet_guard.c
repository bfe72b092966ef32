/* Preloaded before a program: every look-up of a name and every packet to another machine is noted in the file
   that QUIET_LOG names, one a line, and refused. This machine's own addresses and files are let through.
   What is not seen: system calls made without the C library. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *call, const char *where)
{
    const char *path = getenv("QUIET_LOG");
    char line[512];
    if (!path)
        return;
    int n = snprintf(line, sizeof line, "%s %s\n", call, where ? where : "?");
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file >= 0) {
        if (write(file, line, n < (int)sizeof line ? n : (int)sizeof line - 1) < 0)
            abort(); /* a guard that cannot speak must not pass for one that saw nothing */
        close(file);
    }
}

/* Whether an address is of another machine; if so it is noted. */
static int foreign(const char *call, const struct sockaddr *to)
{
    char where[INET6_ADDRSTRLEN + 8] = "", text[INET6_ADDRSTRLEN + 16];
    if (!to)
        return 0;
    if (to->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)to;
        if ((ntohl(four->sin_addr.s_addr) >> 24) == 127)
            return 0;
        inet_ntop(AF_INET, &four->sin_addr, where, sizeof where);
        snprintf(text, sizeof text, "%s:%d", where, ntohs(four->sin_port));
    } else if (to->sa_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)to;
        if (IN6_IS_ADDR_LOOPBACK(&six->sin6_addr))
            return 0;
        inet_ntop(AF_INET6, &six->sin6_addr, where, sizeof where);
        snprintf(text, sizeof text, "[%s]:%d", where, ntohs(six->sin6_port));
    } else {
        return 0;
    }
    note(call, text);
    errno = ENETUNREACH;
    return 1;
}

static int named(const char *call, const char *name)
{
    struct in_addr four;
    struct in6_addr six;
    /* A number is no look-up; where it leads is seen when it is connected to. */
    if (!name || !strcmp(name, "localhost") || inet_pton(AF_INET, name, &four) == 1 ||
        inet_pton(AF_INET6, name, &six) == 1)
        return 0;
    note(call, name);
    return 1;
}

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int connect(int fd, const struct sockaddr *to, socklen_t n)
{
    NEXT(connect);
    return foreign("connect", to) ? -1 : next(fd, to, n);
}

ssize_t sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *to, socklen_t m)
{
    NEXT(sendto);
    return foreign("sendto", to) ? -1 : next(fd, data, n, flags, to, m);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    NEXT(sendmsg);
    return foreign("sendmsg", message->msg_name) ? -1 : next(fd, message, flags);
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned int n, int flags)
{
    NEXT(sendmmsg);
    for (unsigned int i = 0; i < n; i++)
        if (foreign("sendmmsg", messages[i].msg_hdr.msg_name))
            return -1;
    return next(fd, messages, n, flags);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    NEXT(getaddrinfo);
    return named("look-up", name) ? EAI_AGAIN : next(name, service, hints, found);
}

struct hostent *gethostbyname(const char *name)
{
    NEXT(gethostbyname);
    if (!named("look-up", name))
        return next(name);
    h_errno = TRY_AGAIN;
    return NULL;
}

struct hostent *gethostbyname2(const char *name, int family)
{
    NEXT(gethostbyname2);
    if (!named("look-up", name))
        return next(name, family);
    h_errno = TRY_AGAIN;
    return NULL;
}

int gethostbyname_r(const char *name, struct hostent *entry, char *buffer, size_t n, struct hostent **found, int *error)
{
    NEXT(gethostbyname_r);
    if (!named("look-up", name))
        return next(name, entry, buffer, n, found, error);
    *found = NULL;
    *error = TRY_AGAIN;
    return EAGAIN;
}

int gethostbyname2_r(const char *name, int family, struct hostent *entry, char *buffer, size_t n,
                     struct hostent **found, int *error)
{
    NEXT(gethostbyname2_r);
    if (!named("look-up", name))
        return next(name, family, entry, buffer, n, found, error);
    *found = NULL;
    *error = TRY_AGAIN;
    return EAGAIN;
}

/* The resolver's own doors: whoever comes here asks a name server. */
int res_query(const char *name, int class, int type, unsigned char *answer, int n)
{
    (void)class, (void)type, (void)answer, (void)n;
    note("look-up", name);
    h_errno = TRY_AGAIN;
    return -1;
}

int res_search(const char *name, int class, int type, unsigned char *answer, int n)
{
    return res_query(name, class, type, answer, n);
}

int res_nquery(void *state, const char *name, int class, int type, unsigned char *answer, int n)
{
    (void)state;
    return res_query(name, class, type, answer, n);
}

int res_nsearch(void *state, const char *name, int class, int type, unsigned char *answer, int n)
{
    (void)state;
    return res_query(name, class, type, answer, n);
}
