/* The functions of the OpenSSL that the interpreter's own `_ssl` module uses, found at run time. So the library of
 * `ssl` reads the records of its own connections, and no second OpenSSL is linked or shipped.
 */
#ifndef GAI_OPENSSL_H
#define GAI_OPENSSL_H

#include <stddef.h>

#include "compiler.h"

typedef struct ssl_st gai_ssl;
typedef struct ssl_session_st gai_session;
typedef struct bio_st gai_bio;
typedef struct bio_method_st gai_bio_method;

enum { /* constants of OpenSSL's interface, the same in all versions since 1.1.1 */
    GAI_SSL_ERROR_SSL = 1,
    GAI_SSL_ERROR_WANT_READ = 2,
    GAI_SSL_ERROR_ZERO_RETURN = 6,
    GAI_BIO_PENDING = 10,
    GAI_BIO_FLUSH = 11,
    GAI_BIO_SOURCE_SINK = 0x0400,
    GAI_BIO_READ_AGAIN = 0x01 | 0x08, /* BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY */
    GAI_BIO_RETRY_FLAGS = 0x0f,
};

/* Bytes that a connection reads records from. */
typedef struct {
    const char *at;
    size_t left;
} gai_source;

typedef struct {
    const char *(*version)(int);
    int (*read)(gai_ssl *, void *, int);
    int (*write)(gai_ssl *, const void *, int);
    int (*get_error)(const gai_ssl *, int);
    gai_bio *(*get_wbio)(const gai_ssl *);
    void (*set0_rbio)(gai_ssl *, gai_bio *);
    int (*set_session)(gai_ssl *, gai_session *);
    gai_session *(*get1_session)(gai_ssl *);
    int (*session_is_resumable)(const gai_session *);
    gai_session *(*session_dup)(const gai_session *);
    void (*session_free)(gai_session *);
    void (*err_clear)(void);
    unsigned long (*err_last)(void);
    const char *(*err_reason)(unsigned long);
    gai_bio *(*bio_new)(const gai_bio_method *);
    int (*bio_free)(gai_bio *);
    int (*bio_up_ref)(gai_bio *);
    int (*bio_read)(gai_bio *, void *, int);
    int (*bio_write)(gai_bio *, const void *, int);
    long (*bio_ctrl)(gai_bio *, int, long, void *);
    void (*bio_set_data)(gai_bio *, void *);
    void *(*bio_get_data)(gai_bio *);
    void (*bio_set_init)(gai_bio *, int);
    void (*bio_set_flags)(gai_bio *, int);
    void (*bio_clear_flags)(gai_bio *, int);
    int (*bio_new_index)(void);
    gai_bio_method *(*meth_new)(int, const char *);
    int (*meth_set_read)(gai_bio_method *, int (*)(gai_bio *, char *, int));
    int (*meth_set_ctrl)(gai_bio_method *, long (*)(gai_bio *, int, long, void *));
    gai_bio_method *source; /* reads a `gai_source` */
} gai_openssl;

extern gai_openssl OPENSSL;

/* Finds the library that a shared object is linked with. Returns 0 if it is missing or has another version. */
int gai_find_openssl(const char *path, const char *version);

#endif
