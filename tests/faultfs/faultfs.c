/* faultfs: a recorder of file operations and a disk that fails or is slow on request, loaded with LD_PRELOAD.
 *
 * Every operation that changes a file or a directory below one of the roots is done and then appended to a log, in
 * the order in which it happened, with the bytes written. From the log a test computes what a disk could hold after
 * the power failed at some operation: everything that was synced, and any part of what was not. The process under
 * test is unmodified, and so is every library in it.
 *
 *   FAULTFS_ROOTS    absolute directories, separated by ':'
 *   FAULTFS_LOG      file to append the log to; without it nothing is recorded
 *   FAULTFS_KILL_AT  number of the operation (from 1) before which the process kills itself with SIGKILL; 0 never
 *   FAULTFS_FAULTS   file that says what is wrong with the disk now; read before each operation, nothing while it is
 *                    not there. Lines of "write|sync|create ERRNO MILLISECONDS [once]": the operation waits that long, then
 *                    fails with that error, or is done if it is 0; with "once" the file is taken away first
 *   FAULTFS_NOTES    a file below a root in which the process says what it believes: recorded like any other, so that the
 *                    log shows what was believed when, but never faulty
 *
 * Log records, little-endian: u32 magic 'FFS1', u8 operation, u8[3] zero, u64 inode, u64 offset, u32 length of path,
 * u32 length of second path or data; then both. Operations: see enum op.
 *
 * One lock covers each operation together with its record, so the log's order is the order of the effects.
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
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum op { OP_CREATE = 1, OP_WRITE, OP_TRUNCATE, OP_SYNC, OP_SYNC_DIR, OP_RENAME, OP_LINK, OP_UNLINK, OP_MKDIR, OP_RMDIR, OP_SYNC_FAILED };

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char roots[8][PATH_MAX];
static int root_count, log_fd = -1;
static const char *faults, *notes;
static uint64_t kill_at, operations;

static void start(void) {
    const char *list = getenv("FAULTFS_ROOTS"), *log = getenv("FAULTFS_LOG"), *at = getenv("FAULTFS_KILL_AT");
    if (!list) return;
    faults = getenv("FAULTFS_FAULTS");
    notes = getenv("FAULTFS_NOTES");
    kill_at = at ? strtoull(at, NULL, 10) : 0;
    char copy[PATH_MAX * 4], *save = NULL;
    snprintf(copy, sizeof copy, "%s", list);
    for (char *root = strtok_r(copy, ":", &save); root && root_count < 8; root = strtok_r(NULL, ":", &save))
        snprintf(roots[root_count++], PATH_MAX, "%s", root);
    if (log) log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static int tracked_path(const char *path) {
    pthread_once(&once, start);
    if (!path) return 0;
    for (int i = 0; i < root_count; i++) {
        size_t n = strlen(roots[i]);
        if (!strncmp(path, roots[i], n) && (path[n] == '/' || path[n] == 0)) return 1;
    }
    return 0;
}

/* The absolute path of (dirfd, path), symbolic links not resolved. */
static void absolute(int dirfd, const char *path, char *out) {
    char base[PATH_MAX];
    if (path[0] == '/') { snprintf(out, PATH_MAX, "%s", path); return; }
    if (dirfd == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) base[0] = 0;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
        ssize_t n = readlink(link, base, sizeof base - 1);
        base[n < 0 ? 0 : n] = 0;
    }
    while (path[0] == '.' && path[1] == '/') path += 2;
    if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) out[0] = 0;
}

static int path_of(int fd, char *out) {
    char link[64];
    pthread_once(&once, start);
    if (!root_count) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n <= 0) return 0;
    out[n] = 0;
    return tracked_path(out);
}

/* Called with the lock held, before the operation: the power fails here. */
static void maybe_kill(void) {
    if (++operations == kill_at) {
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;) pause();
    }
}

/* Waits as long as the disk is said to, then says with which error the operation fails; 0 for none. */
static int fault(const char *operation) {
    char text[512], name[16], times[16];
    if (!faults) return 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, faults, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    text[n < 0 ? 0 : n] = 0;
    for (char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL) {
        int error, milliseconds;
        times[0] = 0;
        if (sscanf(line, "%15s %d %d %15s", name, &error, &milliseconds, times) < 3 || strcmp(name, operation)) continue;
        if (!strcmp(times, "once")) syscall(SYS_unlinkat, AT_FDCWD, faults, 0);
        struct timespec wait = {milliseconds / 1000, (milliseconds % 1000) * 1000000L};
        nanosleep(&wait, NULL);
        return error;
    }
    return 0;
}

#define FAIL(operation) \
    do { \
        int failed = fault(operation); \
        if (failed) { errno = failed; return -1; } \
    } while (0)

static void record(enum op op, uint64_t inode, uint64_t offset, const char *path, const struct iovec *data, int count, size_t len) {
    if (log_fd < 0) return;
    unsigned char head[32] = {'F', 'F', 'S', '1', (unsigned char)op};
    uint32_t path_len = (uint32_t)strlen(path), data_len = (uint32_t)len;
    memcpy(head + 8, &inode, 8);
    memcpy(head + 16, &offset, 8);
    memcpy(head + 24, &path_len, 4);
    memcpy(head + 28, &data_len, 4);
    struct iovec first[2] = {{head, sizeof head}, {(void *)path, path_len}};
    syscall(SYS_writev, log_fd, first, 2);
    for (int i = 0; i < count && len; i++) {
        size_t n = data[i].iov_len < len ? data[i].iov_len : len, done = 0;
        while (done < n) {
            ssize_t w = syscall(SYS_write, log_fd, (char *)data[i].iov_base + done, n - done);
            if (w <= 0) abort();
            done += (size_t)w;
        }
        len -= n;
    }
}

static void record_text(enum op op, uint64_t inode, const char *path, const char *second) {
    struct iovec data = {(void *)second, second ? strlen(second) : 0};
    record(op, inode, 0, path, &data, 1, data.iov_len);
}

static uint64_t inode_of(int fd) {
    struct stat st;
    return fstat(fd, &st) ? 0 : (uint64_t)st.st_ino;
}

#define REAL(ret, name, ...) \
    static ret (*real)(__VA_ARGS__); \
    if (!real) real = (ret(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static int opened(int dirfd, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    absolute(dirfd, path, full);
    if (!tracked_path(full) || !(flags & (O_CREAT | O_TRUNC)))
        return (int)syscall(SYS_openat, dirfd, path, flags, mode);
    FAIL("create");
    pthread_mutex_lock(&lock);
    struct stat st;
    int existed = !fstatat(AT_FDCWD, full, &st, AT_SYMLINK_NOFOLLOW);
    if (!existed || (flags & O_TRUNC)) maybe_kill();
    int fd = (int)syscall(SYS_openat, dirfd, path, flags, mode), saved = errno;
    if (fd >= 0 && !existed) record_text(OP_CREATE, inode_of(fd), full, NULL);
    else if (fd >= 0 && (flags & O_TRUNC) && st.st_size) record(OP_TRUNCATE, inode_of(fd), 0, full, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}

static mode_t mode_of(int flags, va_list arguments) {
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}
#define OPEN(signature, dirfd) \
    int signature { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode_t mode = mode_of(flags, arguments); \
        va_end(arguments); \
        return opened(dirfd, path, flags, mode); \
    }
OPEN(open(const char *path, int flags, ...), AT_FDCWD)
OPEN(open64(const char *path, int flags, ...), AT_FDCWD)
OPEN(openat(int dirfd, const char *path, int flags, ...), dirfd)
OPEN(openat64(int dirfd, const char *path, int flags, ...), dirfd)

/* Does a write by `call` and records what was written where. */
#define WRITTEN(fd, at, vector, count, call) \
    do { \
        char path[PATH_MAX]; \
        if (!path_of(fd, path)) return call; \
        int noted = notes && !strcmp(path, notes); \
        if (!noted) FAIL("write"); \
        pthread_mutex_lock(&lock); \
        if (!noted) maybe_kill(); \
        ssize_t done = call; \
        int saved = errno; \
        if (done > 0) { \
            int64_t offset = (at) >= 0 ? (int64_t)(at) : (int64_t)lseek(fd, 0, SEEK_CUR) - done; \
            record(OP_WRITE, inode_of(fd), (uint64_t)offset, path, vector, count, (size_t)done); \
        } \
        pthread_mutex_unlock(&lock); \
        errno = saved; \
        return done; \
    } while (0)

ssize_t write(int fd, const void *bytes, size_t len) {
    struct iovec one = {(void *)bytes, len};
    WRITTEN(fd, -1, &one, 1, syscall(SYS_write, fd, bytes, len));
}
ssize_t writev(int fd, const struct iovec *vector, int count) {
    WRITTEN(fd, -1, vector, count, syscall(SYS_writev, fd, vector, count));
}
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
    struct iovec one = {(void *)bytes, len};
    WRITTEN(fd, at, &one, 1, syscall(SYS_pwrite64, fd, bytes, len, at));
}
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) { return pwrite64(fd, bytes, len, at); }
ssize_t pwritev64(int fd, const struct iovec *vector, int count, off64_t at) {
    REAL(ssize_t, pwritev64, int, const struct iovec *, int, off64_t);
    WRITTEN(fd, at, vector, count, real(fd, vector, count, at));
}
ssize_t pwritev(int fd, const struct iovec *vector, int count, off_t at) { return pwritev64(fd, vector, count, at); }

static int synced(int fd, long call) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return (int)syscall(call, fd);
    int failed = fault("sync");
    pthread_mutex_lock(&lock);
    maybe_kill();
    struct stat st;
    int result = failed ? -1 : (int)syscall(call, fd), saved = failed ? failed : errno;
    int is_dir = fstat(fd, &st) || S_ISDIR(st.st_mode);
    if (!result) record_text(is_dir ? OP_SYNC_DIR : OP_SYNC, st.st_ino, path, NULL);
    else if (!is_dir) record_text(OP_SYNC_FAILED, st.st_ino, path, NULL);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int ftruncate64(int fd, off64_t len) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return (int)syscall(SYS_ftruncate, fd, len);
    pthread_mutex_lock(&lock);
    maybe_kill();
    int result = (int)syscall(SYS_ftruncate, fd, len), saved = errno;
    if (!result) record(OP_TRUNCATE, inode_of(fd), (uint64_t)len, path, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}
int ftruncate(int fd, off_t len) { return ftruncate64(fd, len); }

/* A name changes by `call`; `from` and `to` are absolute. */
static int named(enum op op, const char *from, const char *to, int (*call)(void *), void *arguments) {
    if (!tracked_path(from) && !(to && tracked_path(to))) return call(arguments);
    pthread_mutex_lock(&lock);
    struct stat st = {0};
    lstat(from, &st);
    maybe_kill();
    int result = call(arguments), saved = errno;
    if (!result && op == OP_MKDIR) lstat(from, &st);
    if (!result) record_text(op, st.st_ino, from, to);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

struct two { int from_dir, to_dir, flags; const char *from, *to; mode_t mode; };
static int do_rename(void *p) { struct two *t = p; return (int)syscall(SYS_renameat2, t->from_dir, t->from, t->to_dir, t->to, t->flags); }
static int do_link(void *p) { struct two *t = p; return (int)syscall(SYS_linkat, t->from_dir, t->from, t->to_dir, t->to, t->flags); }
static int do_unlink(void *p) { struct two *t = p; return (int)syscall(SYS_unlinkat, t->from_dir, t->from, t->flags); }
static int do_mkdir(void *p) { struct two *t = p; return (int)syscall(SYS_mkdirat, t->from_dir, t->from, t->mode); }

static int renamed(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char a[PATH_MAX], b[PATH_MAX];
    absolute(from_dir, from, a);
    absolute(to_dir, to, b);
    struct two t = {from_dir, to_dir, flags, from, to, 0};
    return named(OP_RENAME, a, b, do_rename, &t);
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return renamed(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return renamed(a, from, b, to, (int)flags); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char a[PATH_MAX], b[PATH_MAX];
    absolute(from_dir, from, a);
    absolute(to_dir, to, b);
    struct two t = {from_dir, to_dir, flags, from, to, 0};
    return named(OP_LINK, a, b, do_link, &t);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int dir, const char *path, int flags) {
    char a[PATH_MAX];
    absolute(dir, path, a);
    struct two t = {dir, 0, flags, path, NULL, 0};
    return named(flags & AT_REMOVEDIR ? OP_RMDIR : OP_UNLINK, a, NULL, do_unlink, &t);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int dir, const char *path, mode_t mode) {
    char a[PATH_MAX];
    absolute(dir, path, a);
    struct two t = {dir, 0, 0, path, NULL, mode};
    return named(OP_MKDIR, a, NULL, do_mkdir, &t);
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
