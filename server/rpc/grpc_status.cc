#include "server/rpc/grpc_status.h"

#include <string>

#include "engine/tensor/status.h"
#include "engine/tensor/utf8.h"

namespace octet {

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message = Utf8Of(Message(status));
  if (message.size() > kMaxStatusMessageBytes) {
    size_t end = kMaxStatusMessageBytes;
    // A byte 10xxxxxx continues a character of UTF-8.
    while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) --end;
    message.resize(end);
    message += "...";
  }
  return {static_cast<grpc::StatusCode>(status.code()), message};
}

}  // namespace octet
