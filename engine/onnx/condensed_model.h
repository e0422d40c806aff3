// A model's protobuf message without the elements that its initializers keep in raw_data: they are read straight into the
// memory that kernels read.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include <google/protobuf/io/zero_copy_stream.h>

#include "engine/onnx/byte_source.h"

namespace octet {

/// A serialized ModelProto without the raw_data of the long initializers of its graph, all else as it was:
///
///   ModelProto { .., graph { .., initializer { dims, data_type, name, raw_data }, .. } .. }
///     =>  ModelProto { .., graph { .., initializer { dims, data_type, name }, .. } .. }  and  left_out: [.., range of raw_data, ..]
struct CondensedModel {
  /// What the message is put together from: bytes of its own, or of the source.
  struct Piece {
    std::string literal;  ///< Empty: `range`.
    ByteRange range;
  };
  std::vector<Piece> pieces;
  /// Of each initializer of the graph, in order: where its elements are in the source, if they were left out.
  std::vector<std::optional<ByteRange>> left_out;

  /// All bytes of `source`, as they are.
  static CondensedModel Whole(const ByteSource& source);
};

/// Reads the headers of messages alone; what they hold is not looked at. What no serializer writes (a graph in parts, raw_data
/// twice, lengths that disagree) stays as it is: the parser says what is wrong with it, or that nothing is.
/// Source: Protocol Buffers documentation, "Encoding"; onnx.proto for the field numbers.
CondensedModel Condense(const ByteSource& source);

/// The bytes of a CondensedModel, for a parser. Requires: both outlive it.
class CondensedStream final : public google::protobuf::io::ZeroCopyInputStream {
 public:
  CondensedStream(const CondensedModel& model, const ByteSource& source)
      : model_(model), source_(source) {}

  bool Next(const void** data, int* size) override;
  void BackUp(int count) override;
  bool Skip(int count) override;
  int64_t ByteCount() const override { return given_ - backed_up_; }

  /// Not OK once the source could not be read.
  const absl::Status& status() const { return status_; }

 private:
  // Read at once: a system call for every few pages would cost as much as copying them.
  static constexpr size_t kWindow = size_t{256} << 10;

  const CondensedModel& model_;
  const ByteSource& source_;
  size_t piece_ = 0;
  uint64_t within_ = 0;  ///< Bytes of the piece that were given.
  const std::byte* last_ = nullptr;
  int last_size_ = 0;
  int backed_up_ = 0;  ///< Of the last bytes.
  int64_t given_ = 0;
  std::vector<std::byte> window_;
  absl::Status status_;
};

}  // namespace octet
