"""The declarations of csrc/openssl.h, which explains them; only `tls` is linked with OpenSSL."""


cdef extern from "openssl.h" nogil:
    enum:
        GAI_SSL_ERROR_SSL
        GAI_SSL_ERROR_WANT_READ
        GAI_SSL_ERROR_ZERO_RETURN
        GAI_BIO_PENDING

    ctypedef struct gai_ssl:
        pass

    ctypedef struct gai_session:
        pass

    ctypedef struct gai_bio:
        pass

    ctypedef struct gai_bio_method:
        pass

    ctypedef struct gai_source:
        const char *at
        size_t left

    ctypedef struct gai_openssl:
        int read(gai_ssl *, void *, int)
        int write(gai_ssl *, const void *, int)
        int get_error(const gai_ssl *, int)
        gai_bio *get_wbio(const gai_ssl *)
        void set0_rbio(gai_ssl *, gai_bio *)
        int set_session(gai_ssl *, gai_session *)
        gai_session *get1_session(gai_ssl *)
        int session_is_resumable(const gai_session *)
        gai_session *session_dup(const gai_session *)
        void session_free(gai_session *)
        void err_clear()
        unsigned long err_last()
        const char *err_reason(unsigned long)
        gai_bio *bio_new(const gai_bio_method *)
        int bio_free(gai_bio *)
        int bio_up_ref(gai_bio *)
        int bio_read(gai_bio *, void *, int)
        int bio_write(gai_bio *, const void *, int)
        long bio_ctrl(gai_bio *, int, long, void *)
        void bio_set_data(gai_bio *, void *)
        void bio_set_init(gai_bio *, int)
        gai_bio_method *source

    gai_openssl OPENSSL
    int gai_find_openssl(const char *path, const char *version)
