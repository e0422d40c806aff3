#include "server/tls/tls_files.h"

#include <cerrno>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <utility>
#include <vector>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr size_t kMaxPemBytes = size_t{1} << 20;

template <auto Free>
struct FreeWith {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, FreeWith<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, FreeWith<X509_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using Context = std::unique_ptr<SSL_CTX, FreeWith<SSL_CTX_free>>;

/// Nobody is there to type one; OpenSSL would ask at the terminal.
int NoPassphrase(char*, int, int, void*) { return -1; }

Bio Reader(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

/// What OpenSSL complained of last, in its words. Its list of errors, one for each thread, is empty afterwards: others look at it.
std::string TakeReason() {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return reason == nullptr ? "unknown reason" : reason;
}

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  if (path.empty()) return std::string();
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  // To open a pipe would wait for who writes it.
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    return InvalidArgument("expected a file in PEM, got a folder, a device or a pipe: {}", path);
  }
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) return SystemError("open", path, errno);
  std::string text;
  char block[4096];
  while (in.read(block, sizeof(block)) || in.gcount() > 0) {
    text.append(block, static_cast<size_t>(in.gcount()));
    if (text.size() > kMaxPemBytes) {
      return InvalidArgument("expected a file in PEM of at most {} bytes, got more: {}",
                             kMaxPemBytes, path);
    }
  }
  if (in.bad()) return SystemError("read", path, errno);
  return text;
}

absl::StatusOr<std::vector<Certificate>> ReadCertificates(const std::string& text,
                                                          const std::string& path) {
  ERR_clear_error();
  std::vector<Certificate> certificates;
  const Bio bio = Reader(text);
  while (X509* const next = PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr)) {
    certificates.emplace_back(next);
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  const std::string reason = TakeReason();
  if (!at_end) {
    return InvalidArgument("certificate {} in the file cannot be read ({}): {}",
                           certificates.size() + 1, reason, path);
  }
  if (certificates.empty()) {
    return InvalidArgument("expected a certificate in PEM, got none: {}", path);
  }
  return certificates;
}

/// As a server that uses them would find out, at its start or with each handshake.
absl::Status CheckIdentity(const std::vector<Certificate>& certificates, EVP_PKEY* key,
                           const TlsPaths& paths) {
  X509* const certificate = certificates.front().get();
  const Context context(SSL_CTX_new(TLS_method()));
  if (context == nullptr) return Internal("OpenSSL cannot begin: {}", TakeReason());
  if (SSL_CTX_use_certificate(context.get(), certificate) != 1) {
    return InvalidArgument("OpenSSL does not take the certificate ({}): {}", TakeReason(),
                           paths.certificate);
  }
  if (X509_check_private_key(certificate, key) != 1) {
    ERR_clear_error();
    return InvalidArgument("the private key in {} is not that of the certificate in {}", paths.key,
                           paths.certificate);
  }
  if (SSL_CTX_use_PrivateKey(context.get(), key) != 1) {
    return InvalidArgument("OpenSSL does not take the private key ({}): {}", TakeReason(),
                           paths.key);
  }
  for (size_t i = 1; i < certificates.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context.get(), certificates[i].get()) == 1) continue;
    return InvalidArgument("OpenSSL does not take certificate {} in the file ({}): {}", i + 1,
                           TakeReason(), paths.certificate);
  }
  return absl::OkStatus();
}

/// The key first: its file and the certificate's may hold more than that, and be the same one.
absl::StatusOr<std::string> Identity(const PrivateKey& key,
                                     const std::vector<Certificate>& certificates) {
  const Bio bio(BIO_new(BIO_s_mem()));
  bool written =
      PEM_write_bio_PrivateKey(bio.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1;
  for (const Certificate& certificate : certificates) {
    written = written && PEM_write_bio_X509(bio.get(), certificate.get()) == 1;
  }
  if (!written)
    return Internal("OpenSSL cannot write a key and its certificates: {}", TakeReason());
  const char* bytes = nullptr;
  const auto size = BIO_get_mem_data(bio.get(), &bytes);
  return std::string(bytes, static_cast<size_t>(size));
}

}  // namespace

absl::StatusOr<TlsFiles> ReadTlsFiles(const TlsPaths& paths) {
  TlsFiles files;
  OCTET_ASSIGN_OR_RETURN(files.certificate, ReadPem(paths.certificate));
  OCTET_ASSIGN_OR_RETURN(files.key, ReadPem(paths.key));
  OCTET_ASSIGN_OR_RETURN(files.authorities, ReadPem(paths.authorities));
  return files;
}

absl::StatusOr<TlsMaterial> CheckTlsFiles(const TlsFiles& files, const TlsPaths& paths) {
  TlsMaterial material;
  if (!paths.authorities.empty()) {
    OCTET_RETURN_IF_ERROR(ReadCertificates(files.authorities, paths.authorities).status());
    material.authorities = files.authorities;
  }
  if (paths.certificate.empty()) return material;
  OCTET_ASSIGN_OR_RETURN(const std::vector<Certificate> certificates,
                         ReadCertificates(files.certificate, paths.certificate));
  const Bio bio = Reader(files.key);
  const PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  if (key == nullptr) {
    return InvalidArgument("expected a private key in PEM without a passphrase, got none: {}",
                           paths.key);
  }
  OCTET_RETURN_IF_ERROR(CheckIdentity(certificates, key.get(), paths));
  OCTET_ASSIGN_OR_RETURN(material.identity, Identity(key, certificates));
  std::tm last = {};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificates.front().get()), &last) != 1) {
    return InvalidArgument("the certificate's last day cannot be read ({}): {}", TakeReason(),
                           paths.certificate);
  }
  material.not_after = std::chrono::sys_seconds(std::chrono::seconds(timegm(&last)));
  return material;
}

absl::StatusOr<TlsMaterial> LoadTlsFiles(const TlsPaths& paths) {
  OCTET_ASSIGN_OR_RETURN(const TlsFiles files, ReadTlsFiles(paths));
  return CheckTlsFiles(files, paths);
}

}  // namespace octet
