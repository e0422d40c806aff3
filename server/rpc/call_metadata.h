// gRPC's metadata, as an inference asks for it.
#pragma once

#include <map>
#include <optional>
#include <string_view>

#include <grpcpp/support/string_ref.h>

namespace octet {

/// A MetadataLookup of one gRPC call, whose metadata outlives it.
class CallMetadata {
 public:
  using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;
  explicit CallMetadata(const Metadata& metadata) : metadata_(metadata) {}

  std::optional<std::string_view> operator()(std::string_view key) const {
    const auto found = metadata_.find(grpc::string_ref(key.data(), key.size()));
    if (found == metadata_.end()) return std::nullopt;
    return std::string_view(found->second.data(), found->second.size());
  }

 private:
  const Metadata& metadata_;
};

}  // namespace octet
