#include "cli/tls_options.h"

#include <grpcpp/grpcpp.h>

#include "engine/tensor/status.h"

namespace octet::cli {

void TlsOptions::AddTo(CLI::App& verb) {
  CLI::Option* authorities = verb.add_option(
      "--tls-ca", paths_.authorities,
      "Speak TLS with servers whose certificate is of an authority in this PEM file; "
      "default plain");
  CLI::Option* certificate =
      verb.add_option("--tls-certificate", paths_.certificate,
                      "PEM file with the certificate to show to servers that ask for one")
          ->needs(authorities);
  CLI::Option* key = verb.add_option("--tls-key", paths_.key,
                                     "PEM file with its private key, without a passphrase")
                         ->needs(certificate);
  certificate->needs(key);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> TlsOptions::Credentials() const {
  if (paths_.authorities.empty()) return grpc::InsecureChannelCredentials();
  OCTET_ASSIGN_OR_RETURN(const TlsMaterial material, LoadTlsFiles(paths_));
  return grpc::SslCredentials({.pem_root_certs = material.authorities,
                               .pem_private_key = material.identity,
                               .pem_cert_chain = material.identity});
}

}  // namespace octet::cli
