// Certificates that are made when a test needs them.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "server/tls/tls_files.h"

namespace octet {

/// A certificate for localhost and 127.0.0.1, which is its own authority, and its key, both in PEM.
struct TlsIdentity {
  std::string certificate;
  std::string key;

  static TlsIdentity Make(int64_t seconds = 3600) { return Make(EVP_EC_gen("P-256"), seconds); }
  /// With a key that is too short for today.
  static TlsIdentity MakeWeak() { return Make(EVP_RSA_gen(1024), 3600); }

  /// The key as a file has it whose owner protects it by a passphrase.
  std::string LockedKey() const {
    BIO* const in = BIO_new_mem_buf(key.data(), static_cast<int>(key.size()));
    EVP_PKEY* const read = PEM_read_bio_PrivateKey(in, nullptr, nullptr, nullptr);
    BIO* const out = BIO_new(BIO_s_mem());
    char passphrase[] = "secret";
    PEM_write_bio_PrivateKey(out, read, EVP_aes_256_cbc(), nullptr, 0, nullptr, passphrase);
    EVP_PKEY_free(read);
    BIO_free(in);
    return Taken(out);
  }

 private:
  static std::string Taken(BIO* bio) {
    char* bytes = nullptr;
    const auto size = BIO_get_mem_data(bio, &bytes);
    std::string text(bytes, static_cast<size_t>(size));
    BIO_free(bio);
    return text;
  }

  static TlsIdentity Make(EVP_PKEY* pair, int64_t seconds) {
    X509* const made = X509_new();
    X509_set_version(made, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
    X509_gmtime_adj(X509_getm_notBefore(made), -7200);
    X509_gmtime_adj(X509_getm_notAfter(made), seconds);
    X509_set_pubkey(made, pair);
    X509_NAME* const name = X509_get_subject_name(made);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
    X509_set_issuer_name(made, name);
    X509_EXTENSION* const names =
        X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    X509_add_ext(made, names, -1);
    X509_EXTENSION_free(names);
    X509_sign(made, pair, EVP_sha256());
    BIO* const certificate = BIO_new(BIO_s_mem());
    BIO* const key = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(certificate, made);
    PEM_write_bio_PrivateKey(key, pair, nullptr, nullptr, 0, nullptr, nullptr);
    X509_free(made);
    EVP_PKEY_free(pair);
    return {Taken(certificate), Taken(key)};
  }
};

/// A folder with the files of one side.
class TlsFolder {
 public:
  TlsFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "octet-tls-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~TlsFolder() { std::filesystem::remove_all(root_); }
  TlsFolder(const TlsFolder&) = delete;
  TlsFolder& operator=(const TlsFolder&) = delete;

  std::string path(const std::string& name) const { return (root_ / name).string(); }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(path(name), std::ios::binary) << text;
  }
  void Write(const TlsIdentity& identity) const {
    Write("tls.crt", identity.certificate);
    Write("tls.key", identity.key);
  }
  TlsPaths paths() const { return {.certificate = path("tls.crt"), .key = path("tls.key")}; }

 private:
  std::filesystem::path root_;
};

}  // namespace octet
