// The options of every verb that calls a server's gRPC port: with what it does so under TLS.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include <CLI/CLI.hpp>
#include <grpcpp/security/credentials.h>

#include "server/tls/tls_files.h"

namespace octet::cli {

class TlsOptions {
 public:
  /// Adds --tls-ca, --tls-certificate and --tls-key. Requires: this object lives until `verb` has been parsed.
  void AddTo(CLI::App& verb);

  /// TLS with --tls-ca, else none. Errors: as LoadTlsFiles.
  absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials() const;

 private:
  TlsPaths paths_;
};

}  // namespace octet::cli
