/* SPDX-License-Identifier: Apache-2.0 */
/* See tunnel_certificates.h. */
#include "tunnel_certificates.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "tunnel/tls/tls.h"

static void must(bool worked, const char *what)
{
    if (!worked) {
        fprintf(stderr, "%s did not work\n", what);
        abort();
    }
}

static void write_key(const char *path, EVP_PKEY *key)
{
    FILE *file = fopen(path, "w");

    must(file != NULL && PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1, path);
    must(fclose(file) == 0, path);
}

/* Signed by ISSUER with ISSUER_KEY; by itself when ISSUER is NULL. */
static X509 *certify(const char *path, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
    X509 *certificate = X509_new();
    X509_NAME *subject = X509_get_subject_name(certificate);
    X509V3_CTX context;
    X509_EXTENSION *extension;
    FILE *file;

    must(X509_set_version(certificate, 2) == 1 &&
             ASN1_INTEGER_set(X509_get_serialNumber(certificate), issuer == NULL ? 1 : 2) == 1 &&
             X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL &&
             X509_gmtime_adj(X509_getm_notAfter(certificate), 86400) != NULL &&
             X509_set_pubkey(certificate, key) == 1 &&
             X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                                        (const unsigned char *)(issuer == NULL ? "ca" : "localhost"), -1, -1, 0) == 1 &&
             X509_set_issuer_name(certificate, issuer == NULL ? subject : X509_get_subject_name(issuer)) == 1,
         "a certificate");
    X509V3_set_ctx(&context, issuer == NULL ? certificate : issuer, certificate, NULL, NULL, 0);
    extension = issuer == NULL
                    ? X509V3_EXT_conf_nid(NULL, &context, NID_basic_constraints, "critical,CA:TRUE")
                    : X509V3_EXT_conf_nid(NULL, &context, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    must(extension != NULL && X509_add_ext(certificate, extension, -1) == 1 &&
             X509_sign(certificate, issuer == NULL ? key : issuer_key, EVP_sha256()) > 0,
         "signing");
    X509_EXTENSION_free(extension);
    file = fopen(path, "w");
    must(file != NULL && PEM_write_X509(file, certificate) == 1, path);
    must(fclose(file) == 0, path);
    return certificate;
}

void tunnel_certificates_make(const char *ca_path, const char *certificate_path, const char *key_path)
{
    EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256");
    X509 *ca, *certificate;

    must(ca_key != NULL && key != NULL, "keys");
    ca = certify(ca_path, ca_key, NULL, NULL);
    certificate = certify(certificate_path, key, ca, ca_key);
    write_key(key_path, key);
    X509_free(ca);
    X509_free(certificate);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
}

struct pcmig_tls *tunnel_certificates_tls(void)
{
    char folder[] = "/tmp/pcmig-XXXXXX", ca[64], certificate[64], key[64], error[PCMIG_TLS_ERROR_BYTES];
    const struct pcmig_tls_files files = {.ca = ca, .certificate = certificate, .key = key};
    struct pcmig_tls *tls;

    must(mkdtemp(folder) != NULL, "mkdtemp");
    snprintf(ca, sizeof(ca), "%s/ca.pem", folder);
    snprintf(certificate, sizeof(certificate), "%s/host.pem", folder);
    snprintf(key, sizeof(key), "%s/host.key", folder);
    tunnel_certificates_make(ca, certificate, key);
    tls = pcmig_tls_new(&files, error);
    must(tls != NULL, "reading the certificates");
    must(unlink(ca) == 0 && unlink(certificate) == 0 && unlink(key) == 0 && rmdir(folder) == 0, "removing them");
    return tls;
}
