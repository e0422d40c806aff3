#include "server/rpc/tls_certificates.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <format>
#include <utility>

#include <grpc/grpc.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"
#include "server/logging/event_log.h"

namespace octet {
namespace {

/// How often gRPC's watcher reads the files of this process.
constexpr unsigned int kWatchSeconds = 1;

constexpr char kMemory[] = "a file in memory";

absl::Status WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return SystemError("write", kMemory, errno);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

std::shared_ptr<grpc::ServerCredentials> Watching(const std::string& identity,
                                                  const std::string& authorities) {
  using grpc::experimental::FileWatcherCertificateProvider;
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<FileWatcherCertificateProvider>(identity, identity, authorities,
                                                       kWatchSeconds));
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  if (!authorities.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace

MemoryFile::~MemoryFile() {
  if (fd_ >= 0) close(fd_);
}

std::string MemoryFile::path() const { return Format("/proc/self/fd/{}", fd_); }

absl::Status MemoryFile::Put(std::string_view bytes) {
  const int fresh = memfd_create("octet", MFD_CLOEXEC);
  if (fresh < 0) return SystemError("create", kMemory, errno);
  absl::Status status = WriteAll(fresh, bytes);
  // Who reads a path twice, as gRPC does a key's and a certificate's, looks at seconds to tell whether the file was another one.
  const timespec change = {.tv_sec = ++changed_, .tv_nsec = 0};
  const timespec times[2] = {change, change};
  if (status.ok() && futimens(fresh, times) != 0) status = SystemError("date", kMemory, errno);
  if (status.ok() && fd_ < 0) {
    fd_ = fresh;
    return status;
  }
  // The path leads to the new file from one moment to the next.
  if (status.ok() && dup3(fresh, fd_, O_CLOEXEC) < 0)
    status = SystemError("replace", kMemory, errno);
  close(fresh);
  return status;
}

TlsCertificates::TlsCertificates(TlsPaths paths, OptionalGauge& not_after)
    : paths_(std::move(paths)), not_after_(not_after) {
  grpc_init();
}

TlsCertificates::~TlsCertificates() {
  credentials_.reset();
  grpc_shutdown();
}

absl::StatusOr<std::unique_ptr<TlsCertificates>> TlsCertificates::Load(const TlsPaths& paths,
                                                                       OptionalGauge& not_after) {
  std::unique_ptr<TlsCertificates> loaded(new TlsCertificates(paths, not_after));
  absl::MutexLock lock(&loaded->mutex_);
  OCTET_ASSIGN_OR_RETURN(loaded->seen_.files, ReadTlsFiles(paths));
  OCTET_ASSIGN_OR_RETURN(const TlsMaterial material, loaded->Check(loaded->seen_));
  OCTET_RETURN_IF_ERROR(loaded->Use(material));
  loaded->decided_ = loaded->seen_;
  const bool mutual = !paths.authorities.empty();
  loaded->credentials_ =
      Watching(loaded->identity_.path(), mutual ? loaded->authorities_.path() : std::string());
  return loaded;
}

absl::StatusOr<TlsMaterial> TlsCertificates::Check(const Sight& sight) const {
  if (!sight.error.empty()) return absl::InvalidArgumentError(sight.error);
  return CheckTlsFiles(sight.files, paths_);
}

absl::Status TlsCertificates::Use(const TlsMaterial& material) {
  OCTET_RETURN_IF_ERROR(identity_.Put(material.identity));
  if (!paths_.authorities.empty()) OCTET_RETURN_IF_ERROR(authorities_.Put(material.authorities));
  not_after_.Set(static_cast<double>(material.not_after.time_since_epoch().count()));
  const bool expired = material.not_after < std::chrono::system_clock::now();
  const std::string not_after = Format("{:%FT%TZ}", material.not_after);
  LogEvent(expired ? LogLevel::kWarn : LogLevel::kInfo, expired ? "tls_expired" : "tls_loaded",
           {{"certificate", paths_.certificate},
            {"not_after", not_after},
            {"client_certificates", !paths_.authorities.empty()}});
  return absl::OkStatus();
}

void TlsCertificates::LookAtFiles(bool reload) {
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<TlsFiles> files = ReadTlsFiles(paths_);
  Sight sight;
  if (files.ok()) {
    sight.files = *std::move(files);
  } else {
    sight.error = Message(files.status());
  }
  const bool settled = reload || sight == seen_;
  seen_ = std::move(sight);
  const bool told = seen_ == decided_ && !(reload && refused_);
  if (!settled || told) return;
  const absl::StatusOr<TlsMaterial> material = Check(seen_);
  const absl::Status status = material.ok() ? Use(*material) : material.status();
  // What had no memory or descriptor may have one at the next look.
  if (status.ok() || !material.ok()) {
    decided_ = seen_;
    refused_ = !status.ok();
  }
  if (!status.ok()) {
    LogEvent(LogLevel::kWarn, "tls_refused",
             {{"certificate", paths_.certificate}, {"error", Message(status)}});
  }
}

}  // namespace octet
