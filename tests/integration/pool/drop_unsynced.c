/*
 * A disk that loses its power with the process: what a database wrote and did not sync is gone.
 *
 * Preloaded into the pool. Files under $FLEXAI_DISK work as ever; beside it, $FLEXAI_DURABLE keeps of each file what
 * was synced. After a kill, only that folder is used.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FD = 4096 };

struct range {
    off64_t from, to;
    struct range *next;
};

static struct range *dirty[MAX_FD];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int durable_of(const char *real, char *path, size_t size)
{
    const char *disk = getenv("FLEXAI_DISK"), *durable = getenv("FLEXAI_DURABLE");
    size_t prefix = disk ? strlen(disk) : 0;
    if (!disk || !durable || strncmp(real, disk, prefix) != 0 || real[prefix] != '/' || strstr(real, "-shm"))
        return 0;
    snprintf(path, size, "%s%s", durable, real + prefix);
    return 1;
}

static int durable_path(int fd, char *path, size_t size)
{
    char link[64], real[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, real, sizeof real - 1);
    if (n <= 0)
        return 0;
    real[n] = '\0';
    return durable_of(real, path, size);
}

static void wrote(int fd, off64_t from, ssize_t n)
{
    char path[PATH_MAX + 64];
    if (n <= 0 || fd < 0 || fd >= MAX_FD || !durable_path(fd, path, sizeof path))
        return;
    struct range *range = malloc(sizeof *range);
    if (!range)
        abort();
    pthread_mutex_lock(&lock);
    *range = (struct range){from, from + n, dirty[fd]};
    dirty[fd] = range;
    pthread_mutex_unlock(&lock);
}

static void synced(int fd)
{
    char path[PATH_MAX + 64], buffer[65536];
    if (fd < 0 || fd >= MAX_FD || !durable_path(fd, path, sizeof path))
        return;
    int to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (to < 0)
        abort();
    pthread_mutex_lock(&lock);
    while (dirty[fd]) {
        struct range *range = dirty[fd];
        for (off64_t at = range->from; at < range->to;) {
            size_t want = (size_t)(range->to - at) < sizeof buffer ? (size_t)(range->to - at) : sizeof buffer;
            ssize_t n = pread64(fd, buffer, want, at);
            if (n <= 0)
                break;
            ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
            if (real(to, buffer, (size_t)n, at) != n)
                abort();
            at += n;
        }
        dirty[fd] = range->next;
        free(range);
    }
    pthread_mutex_unlock(&lock);
    struct stat size;
    if (fstat(fd, &size) == 0 && ftruncate(to, size.st_size) != 0)
        abort();
    close(to);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pwrite64");
    ssize_t done = real(fd, data, n, at);
    wrote(fd, at, done);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    return pwrite64(fd, data, n, at);
}

ssize_t write(int fd, const void *data, size_t n)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "write");
    off64_t at = lseek64(fd, 0, SEEK_CUR);
    ssize_t done = real(fd, data, n);
    if (at >= 0)
        wrote(fd, at, done);
    return done;
}

int fsync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fsync");
    int status = real(fd);
    if (status == 0)
        synced(fd);
    return status;
}

int fdatasync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fdatasync");
    int status = real(fd);
    if (status == 0)
        synced(fd);
    return status;
}

/* SQLite syncs the directory after it removed a file, before it goes on. */
int unlink(const char *name)
{
    static int (*real)(const char *);
    char path[PATH_MAX + 64];
    if (!real)
        real = dlsym(RTLD_NEXT, "unlink");
    if (durable_of(name, path, sizeof path))
        real(path);
    return real(name);
}
