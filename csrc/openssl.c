#include "openssl.h"

#include <dlfcn.h>
#include <string.h>

gai_openssl OPENSSL;

static int gai_read_source(gai_bio *bio, char *to, int size) {
    gai_source *source = OPENSSL.bio_get_data(bio);
    size_t taken = size < 0 ? 0 : (size_t)size;
    OPENSSL.bio_clear_flags(bio, GAI_BIO_RETRY_FLAGS);
    if (source == NULL || source->left == 0) {
        OPENSSL.bio_set_flags(bio, GAI_BIO_READ_AGAIN);
        return -1;
    }
    if (taken > source->left) taken = source->left;
    memcpy(to, source->at, taken);
    source->at += taken;
    source->left -= taken;
    return (int)taken;
}

static long gai_control_source(gai_bio *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == GAI_BIO_FLUSH;
}

int gai_find_openssl(const char *path, const char *version) {
    void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
    if (library == NULL) return 0;
    const struct {
        const char *name;
        void *function;
    } wanted[] = {
        {"OpenSSL_version", &OPENSSL.version},
        {"SSL_read", &OPENSSL.read},
        {"SSL_write", &OPENSSL.write},
        {"SSL_get_error", &OPENSSL.get_error},
        {"SSL_get_wbio", &OPENSSL.get_wbio},
        {"SSL_set0_rbio", &OPENSSL.set0_rbio},
        {"SSL_set_session", &OPENSSL.set_session},
        {"SSL_get1_session", &OPENSSL.get1_session},
        {"SSL_SESSION_is_resumable", &OPENSSL.session_is_resumable},
        {"SSL_SESSION_dup", &OPENSSL.session_dup},
        {"SSL_SESSION_free", &OPENSSL.session_free},
        {"ERR_clear_error", &OPENSSL.err_clear},
        {"ERR_peek_last_error", &OPENSSL.err_last},
        {"ERR_reason_error_string", &OPENSSL.err_reason},
        {"BIO_new", &OPENSSL.bio_new},
        {"BIO_free", &OPENSSL.bio_free},
        {"BIO_up_ref", &OPENSSL.bio_up_ref},
        {"BIO_read", &OPENSSL.bio_read},
        {"BIO_write", &OPENSSL.bio_write},
        {"BIO_ctrl", &OPENSSL.bio_ctrl},
        {"BIO_set_data", &OPENSSL.bio_set_data},
        {"BIO_get_data", &OPENSSL.bio_get_data},
        {"BIO_set_init", &OPENSSL.bio_set_init},
        {"BIO_set_flags", &OPENSSL.bio_set_flags},
        {"BIO_clear_flags", &OPENSSL.bio_clear_flags},
        {"BIO_get_new_index", &OPENSSL.bio_new_index},
        {"BIO_meth_new", &OPENSSL.meth_new},
        {"BIO_meth_set_read", &OPENSSL.meth_set_read},
        {"BIO_meth_set_ctrl", &OPENSSL.meth_set_ctrl},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        void *found = dlsym(library, wanted[i].name);
        if (found == NULL) return 0;
        memcpy(wanted[i].function, &found, sizeof(found)); /* ISO C has no cast from an object to a function pointer */
    }
    if (strcmp(OPENSSL.version(0), version) != 0) return 0;
    gai_bio_method *source = OPENSSL.meth_new(OPENSSL.bio_new_index() | GAI_BIO_SOURCE_SINK, "gai-fast source");
    if (source == NULL) return 0;
    OPENSSL.meth_set_read(source, gai_read_source);
    OPENSSL.meth_set_ctrl(source, gai_control_source);
    OPENSSL.source = source;
    return 1;
}
