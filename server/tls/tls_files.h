// The PEM files of one side of a TLS connection: read, and tried with OpenSSL before anybody depends on them.
#pragma once

#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace octet {

/// Where they are; empty: none. A certificate comes with a key.
struct TlsPaths {
  std::string certificate;  ///< This side's, and behind it those between it and its authority.
  std::string key;          ///< Of this side's certificate, without a passphrase.
  std::string authorities;  ///< Of the other side's certificate.
};

/// What they hold.
struct TlsFiles {
  std::string certificate;
  std::string key;
  std::string authorities;
  bool operator==(const TlsFiles&) const = default;
};

/// What a TLS library is given, in PEM.
struct TlsMaterial {
  std::string identity;     ///< The key and, behind it, the certificates, this side's first.
  std::string authorities;  ///< As the file has them.
  std::chrono::sys_seconds not_after;  ///< The last second of this side's certificate.
};

/// Reads the files whole. Errors name the file: SystemError's; INVALID_ARGUMENT for what is no regular file, and above 1 MiB.
absl::StatusOr<TlsFiles> ReadTlsFiles(const TlsPaths& paths);

/// Takes them apart; `paths` name them in errors. INVALID_ARGUMENT naming the file without what it should hold in PEM, with a key
/// that has a passphrase, with a certificate or key that OpenSSL does not take at its security level (too short, an old hash), and
/// naming two files for a key that is another certificate's. Dates are nobody's error: the clock may be wrong.
absl::StatusOr<TlsMaterial> CheckTlsFiles(const TlsFiles& files, const TlsPaths& paths);

/// Both.
absl::StatusOr<TlsMaterial> LoadTlsFiles(const TlsPaths& paths);

}  // namespace octet
