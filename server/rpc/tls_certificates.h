// What gRPC's port shows and trusts under TLS, kept as its files are.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include <grpcpp/security/server_credentials.h>

#include "server/metrics/cells.h"
#include "server/tls/tls_files.h"

namespace octet {

/// Bytes in memory with a path in this process, which others than the process's own user cannot open. Their reader sees one Put or
/// another, never a mixture, and each has a later time of change than those before it.
class MemoryFile {
 public:
  MemoryFile() = default;
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  /// The path stays the same from the first Put on. SystemError's codes when there is no memory or descriptor.
  absl::Status Put(std::string_view bytes);
  /// Requires: Put.
  std::string path() const;

 private:
  int fd_ = -1;
  std::time_t changed_ = 0;
};

/// Thread-safety: safe.
///
/// Certificates are renewed under a running server. gRPC has two ways to hear of it. Its watcher of files takes what it finds: with
/// a key and a certificate that do not match every handshake fails from then on. Its callback for new certificates keeps the old
/// ones, and frees what a handshake on another thread may be about to use (github.com/grpc/grpc/issues/36693). So the watcher it
/// is, on files of this process's own (MemoryFile), into which only that comes that OpenSSL has taken.
class TlsCertificates {
 public:
  /// Errors: as LoadTlsFiles, and MemoryFile's. With paths.authorities clients must show a certificate of one of them. `not_after`
  /// outlives it, and says until when the certificate in use is valid, in Unix seconds. One that is valid no more is used all the
  /// same, with a warning in the log, as by nginx, Envoy and gRPC's other servers: the clock may be wrong, and clients decide.
  static absl::StatusOr<std::unique_ptr<TlsCertificates>> Load(const TlsPaths& paths,
                                                               OptionalGauge& not_after);
  TlsCertificates(const TlsCertificates&) = delete;
  TlsCertificates& operator=(const TlsCertificates&) = delete;
  ~TlsCertificates();

  /// What servers listen with that this object outlives.
  std::shared_ptr<grpc::ServerCredentials> credentials() const { return credentials_; }

  /// Reads the files. What two looks saw alike, for a certificate and its key are written one after the other, is used by
  /// handshakes that begin a second later; connections that are there stay. What cannot be used is logged once, and changes nothing;
  /// where memory or a descriptor is missing, the next look tries again.
  void Look() { LookAtFiles(false); }
  /// Look, for who says that the files are in place: one is enough, and what cannot be used is logged though it was before.
  void Reload() { LookAtFiles(true); }

 private:
  /// One look at the files: what they hold, or why they cannot be read.
  struct Sight {
    TlsFiles files;
    std::string error;
    bool operator==(const Sight&) const = default;
  };

  TlsCertificates(TlsPaths paths, OptionalGauge& not_after);
  void LookAtFiles(bool reload);
  absl::StatusOr<TlsMaterial> Check(const Sight& sight) const;
  absl::Status Use(const TlsMaterial& material) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const TlsPaths paths_;
  OptionalGauge& not_after_;
  absl::Mutex mutex_;
  Sight seen_ ABSL_GUARDED_BY(mutex_);            ///< By the last look.
  Sight decided_ ABSL_GUARDED_BY(mutex_);         ///< Used or refused last.
  bool refused_ ABSL_GUARDED_BY(mutex_) = false;  ///< And which of both.
  MemoryFile identity_ ABSL_GUARDED_BY(mutex_);
  MemoryFile authorities_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<grpc::ServerCredentials> credentials_;
};

}  // namespace octet
