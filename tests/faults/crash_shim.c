/* Counts the calls that change files below one folder, writes them down, and breaks one of them.
 *
 * Loaded with LD_PRELOAD. `faults_arm` names the folder and says what is to happen at the n-th call; before it
 * nothing is counted. Every other call goes straight to the kernel. Calls are counted and carried out one at a
 * time, whatever the thread, so that the journal's order is the disk's. Linux with glibc only.
 *
 * The C library's own streams write past this table, so `fopen` and `fdopen` hand out streams that do not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN = 1, WRITE, FSYNC, RENAME, LINK, UNLINK, RMDIR, MKDIR, TRUNCATE };
enum mode { COUNT, KILL, KILL_HALF, FAIL_ONCE, FAIL_FROM, SHORT };

/* One entry of the journal; the two paths and the data follow it. */
struct entry {
    uint32_t kind;
    int32_t flags; /* of open */
    int64_t at;    /* write: offset; truncate: length */
    int32_t error; /* errno, 0 where the call went well */
    uint32_t path_bytes, target_bytes;
    uint32_t pad;
    uint64_t data_bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static size_t folder_bytes;
static int mode, failure, journal = -1;
static long target, counted;

/* Begin to count in `below`, a real path; at call `n` from 1 do what `what` says. `log`: a file, or "". */
void faults_arm(const char *below, int what, long n, int error, const char *log) {
    snprintf(folder, sizeof folder, "%s", below);
    folder_bytes = strlen(folder);
    mode = what, target = n, failure = error, counted = 0;
    journal = *log ? (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
}

long faults_counted(void) { return counted; }

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* The name of an open file as the kernel knows it; false where it has none. */
static int name_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    if (n <= 0) return 0;
    out[n] = 0;
    return *out == '/';
}

/* `path` as an absolute one without "." and ".."; false where it lies outside the folder. */
static int below(int at, const char *path, char *out) {
    char whole[2 * PATH_MAX];
    if (!folder_bytes || !path) return 0;
    if (*path == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char base[PATH_MAX];
        if (at == AT_FDCWD) {
            if (syscall(SYS_getcwd, base, sizeof base) <= 0) return 0;
        } else if (!name_of(at, base)) {
            return 0;
        }
        snprintf(whole, sizeof whole, "%s/%s", base, path);
    }
    size_t n = 0;
    for (char *rest, *part = strtok_r(whole, "/", &rest); part; part = strtok_r(NULL, "/", &rest)) {
        if (!strcmp(part, ".")) continue;
        if (!strcmp(part, "..")) {
            while (n && out[--n] != '/') {}
            continue;
        }
        size_t more = strlen(part);
        if (n + more + 2 > PATH_MAX) return 0;
        out[n++] = '/';
        memcpy(out + n, part, more);
        n += more;
    }
    out[n] = 0;
    return !strncmp(out, folder, folder_bytes) && (out[folder_bytes] == '/' || !out[folder_bytes]);
}

static int open_below(int fd, char *out) {
    char name[PATH_MAX];
    return folder_bytes && name_of(fd, name) && below(AT_FDCWD, name, out);
}

static int takes_room(enum kind kind) { return kind != UNLINK && kind != RMDIR; }

/* Count one call; what it must fail with, or 0. `*length` of a write is cut where only a part is to arrive. */
static int meet(enum kind kind, size_t *length, int *dying) {
    long n = ++counted;
    if (mode == KILL && n == target) die();
    if (mode == KILL_HALF && n == target) {
        if (kind != WRITE) die();
        *length /= 2, *dying = 1;
    }
    if (mode == FAIL_ONCE && n == target) return failure;
    /* A full disk still lets files go. */
    if (mode == FAIL_FROM && n >= target && (failure != ENOSPC || takes_room(kind))) return failure;
    if (mode == SHORT && n == target && kind == WRITE && *length > 1) *length /= 2;
    return 0;
}

static void put(const void *data, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t n = syscall(SYS_write, journal, (const char *)data + done, length - done);
        if (n <= 0) die();
        done += (size_t)n;
    }
}

static void note(enum kind kind, const char *path, const char *to, int flags, int64_t at, const void *data,
                 size_t length, int error) {
    if (journal < 0) return;
    struct entry e = {kind, flags, at, error, (uint32_t)strlen(path), (uint32_t)(to ? strlen(to) : 0), 0, length};
    put(&e, sizeof e);
    put(path, e.path_bytes);
    put(to ? to : "", e.target_bytes);
    put(data, length);
}

/* One counted call that is not a write: `CALL` is what the kernel is asked. */
#define COUNTED(KIND, PATH, TO, FLAGS, AT, CALL)                          \
    do {                                                                  \
        size_t none = 0;                                                  \
        int dying = 0;                                                    \
        pthread_mutex_lock(&lock);                                        \
        int error = meet(KIND, &none, &dying);                            \
        long result = error ? -1 : (long)(CALL);                          \
        if (!error && result < 0) error = errno;                          \
        note(KIND, PATH, TO, FLAGS, AT, NULL, 0, error);                  \
        pthread_mutex_unlock(&lock);                                      \
        if (error) errno = error;                                         \
        return (int)result;                                               \
    } while (0)

static int open_at(int at, const char *path, int flags, mode_t bits) {
    char name[PATH_MAX];
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
    if (writes && below(at, path, name))
        COUNTED(OPEN, name, NULL, flags, 0, syscall(SYS_openat, at, path, flags, bits));
    return (int)syscall(SYS_openat, at, path, flags, bits);
}

#define BITS                                        \
    mode_t bits = 0;                                \
    if (flags & (O_CREAT | O_TMPFILE)) {            \
        va_list rest;                               \
        va_start(rest, flags);                      \
        bits = (mode_t)va_arg(rest, int);           \
        va_end(rest);                               \
    }

int open(const char *path, int flags, ...) { BITS return open_at(AT_FDCWD, path, flags, bits); }
int open64(const char *path, int flags, ...) { BITS return open_at(AT_FDCWD, path, flags, bits); }
int openat(int at, const char *path, int flags, ...) { BITS return open_at(at, path, flags, bits); }
int openat64(int at, const char *path, int flags, ...) { BITS return open_at(at, path, flags, bits); }
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __openat_2(int at, const char *path, int flags) { return open_at(at, path, flags, 0); }
int __openat64_2(int at, const char *path, int flags) { return open_at(at, path, flags, 0); }
int creat(const char *path, mode_t bits) { return open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, bits); }
int creat64(const char *path, mode_t bits) { return open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, bits); }

/* `at` < 0: where the file stands. */
static ssize_t write_at(int fd, const void *data, size_t length, off_t at) {
    char name[PATH_MAX];
    if (!open_below(fd, name))
        return at < 0 ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, at);
    int dying = 0;
    pthread_mutex_lock(&lock);
    int error = meet(WRITE, &length, &dying);
    ssize_t n = -1;
    if (!error) {
        n = at < 0 ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, at);
        if (n < 0) error = errno;
    }
    if (dying) die();
    off_t from = at < 0 ? syscall(SYS_lseek, fd, 0, SEEK_CUR) - (n > 0 ? n : 0) : at;
    note(WRITE, name, NULL, 0, from, data, n > 0 ? (size_t)n : 0, error);
    pthread_mutex_unlock(&lock);
    if (error) errno = error;
    return n;
}

static ssize_t gathered(int fd, const struct iovec *part, int parts, off_t at) {
    size_t length = 0, done = 0;
    for (int i = 0; i < parts; i++) length += part[i].iov_len;
    char *data = malloc(length + 1);
    for (int i = 0; i < parts; done += part[i++].iov_len) memcpy(data + done, part[i].iov_base, part[i].iov_len);
    ssize_t n = write_at(fd, data, length, at);
    int error = errno;
    free(data);
    errno = error;
    return n;
}

ssize_t write(int fd, const void *data, size_t length) { return write_at(fd, data, length, -1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return write_at(fd, data, length, at); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) { return write_at(fd, data, length, at); }
ssize_t writev(int fd, const struct iovec *part, int parts) { return gathered(fd, part, parts, -1); }
ssize_t pwritev(int fd, const struct iovec *part, int parts, off_t at) { return gathered(fd, part, parts, at); }
ssize_t pwritev64(int fd, const struct iovec *part, int parts, off64_t at) { return gathered(fd, part, parts, at); }

int fsync(int fd) {
    char name[PATH_MAX];
    if (open_below(fd, name)) COUNTED(FSYNC, name, NULL, 0, 0, syscall(SYS_fsync, fd));
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    char name[PATH_MAX];
    if (open_below(fd, name)) COUNTED(FSYNC, name, NULL, 0, 0, syscall(SYS_fdatasync, fd));
    return (int)syscall(SYS_fdatasync, fd);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    char a[PATH_MAX], b[PATH_MAX];
    if (below(from, old, a) && below(to, new, b))
        COUNTED(RENAME, a, b, (int)flags, 0, syscall(SYS_renameat2, from, old, to, new, flags));
    return (int)syscall(SYS_renameat2, from, old, to, new, flags);
}

int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }

int linkat(int from, const char *old, int to, const char *new, int flags) {
    char a[PATH_MAX], b[PATH_MAX];
    if (below(from, old, a) && below(to, new, b))
        COUNTED(LINK, a, b, 0, 0, syscall(SYS_linkat, from, old, to, new, flags));
    return (int)syscall(SYS_linkat, from, old, to, new, flags);
}

int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int unlinkat(int at, const char *path, int flags) {
    char name[PATH_MAX];
    if (below(at, path, name))
        COUNTED(flags & AT_REMOVEDIR ? RMDIR : UNLINK, name, NULL, 0, 0, syscall(SYS_unlinkat, at, path, flags));
    return (int)syscall(SYS_unlinkat, at, path, flags);
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int remove(const char *path) {
    struct stat found;
    return unlinkat(AT_FDCWD, path, !lstat(path, &found) && S_ISDIR(found.st_mode) ? AT_REMOVEDIR : 0);
}

int mkdirat(int at, const char *path, mode_t bits) {
    char name[PATH_MAX];
    if (below(at, path, name)) COUNTED(MKDIR, name, NULL, 0, 0, syscall(SYS_mkdirat, at, path, bits));
    return (int)syscall(SYS_mkdirat, at, path, bits);
}

int mkdir(const char *path, mode_t bits) { return mkdirat(AT_FDCWD, path, bits); }

int ftruncate(int fd, off_t length) {
    char name[PATH_MAX];
    if (open_below(fd, name)) COUNTED(TRUNCATE, name, NULL, 0, length, syscall(SYS_ftruncate, fd, length));
    return (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

int truncate(const char *path, off_t length) {
    char name[PATH_MAX];
    if (below(AT_FDCWD, path, name)) COUNTED(TRUNCATE, name, NULL, 0, length, syscall(SYS_truncate, path, length));
    return (int)syscall(SYS_truncate, path, length);
}

int truncate64(const char *path, off64_t length) { return truncate(path, length); }

/* Streams whose bytes pass through `write` above. */
static ssize_t stream_read(void *fd, char *data, size_t length) { return read(*(int *)fd, data, length); }

static ssize_t stream_write(void *fd, const char *data, size_t length) {
    ssize_t n = write(*(int *)fd, data, length);
    return n < 0 ? 0 : n; /* so does fopencookie want it */
}

static int stream_seek(void *fd, off64_t *at, int from) {
    off64_t now = lseek64(*(int *)fd, *at, from);
    return now < 0 ? -1 : (*at = now, 0);
}

static int stream_close(void *fd) {
    int result = close(*(int *)fd);
    free(fd);
    return result;
}

static FILE *stream(int fd, const char *how) {
    int *own = malloc(sizeof *own);
    *own = fd;
    return fopencookie(own, how, (cookie_io_functions_t){stream_read, stream_write, stream_seek, stream_close});
}

static int for_writing(const char *how) { return strpbrk(how, "wa+") != NULL; }

FILE *fdopen(int fd, const char *how) {
    char name[PATH_MAX];
    FILE *(*own)(int, const char *) = (FILE * (*)(int, const char *)) dlsym(RTLD_NEXT, "fdopen");
    return for_writing(how) && open_below(fd, name) ? stream(fd, how) : own(fd, how);
}

static FILE *open_stream(const char *path, const char *how, const char *symbol) {
    char name[PATH_MAX];
    if (!for_writing(how) || !below(AT_FDCWD, path, name))
        return ((FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, symbol))(path, how);
    int flags = strchr(how, '+') ? O_RDWR : O_WRONLY;
    if (*how != 'r') flags |= O_CREAT | (*how == 'a' ? O_APPEND : O_TRUNC) | (strchr(how, 'x') ? O_EXCL : 0);
    int fd = open_at(AT_FDCWD, path, flags, 0666);
    return fd < 0 ? NULL : stream(fd, how);
}

FILE *fopen(const char *path, const char *how) { return open_stream(path, how, "fopen"); }
FILE *fopen64(const char *path, const char *how) { return open_stream(path, how, "fopen64"); }
