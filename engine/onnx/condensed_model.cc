#include "engine/onnx/condensed_model.h"

#include <algorithm>
#include <limits>
#include <span>
#include <utility>

namespace octet {
namespace {

// Field numbers of onnx.proto.
constexpr uint32_t kModelGraph = 7;
constexpr uint32_t kGraphInitializer = 5;
constexpr uint32_t kTensorRawData = 9;

/// Shorter elements are not worth a read of their own.
constexpr uint64_t kLongElements = 4096;

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kLength = 2, kFixed32 = 5 };

/// One field of a message: its header and what it holds.
struct Field {
  uint32_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t begin = 0;  ///< Of the header.
  ByteRange content;   ///< Behind the header; of a varint all of it.

  uint64_t end() const { return content.offset + content.length; }
};

/// Reads headers at any place, a window of the source at a time.
class HeaderReader {
 public:
  explicit HeaderReader(const ByteSource& source) : source_(source) {}

  /// The field at `at`, which must end by `end`; nullopt where there is no such field.
  std::optional<Field> FieldAt(uint64_t at, uint64_t end) {
    Field field{.begin = at};
    const std::optional<uint64_t> tag = Varint(at, end, kLongestHeader);
    if (!tag || *tag > std::numeric_limits<uint32_t>::max()) return std::nullopt;
    field.number = static_cast<uint32_t>(*tag >> 3);
    field.type = static_cast<WireType>(*tag & 7);
    field.content.offset = at;
    switch (field.type) {
      case WireType::kVarint:
        if (!Varint(at, end, kLongestNumber)) return std::nullopt;
        field.content.length = at - field.content.offset;
        break;
      case WireType::kFixed64:
        field.content.length = 8;
        break;
      case WireType::kFixed32:
        field.content.length = 4;
        break;
      case WireType::kLength: {
        const std::optional<uint64_t> length = Varint(at, end, kLongestHeader);
        if (!length) return std::nullopt;
        field.content = {at, *length};
        break;
      }
      default:
        return std::nullopt;
    }
    if (field.content.length > end - field.content.offset) return std::nullopt;
    return field;
  }

 private:
  // Bytes of a tag or a length, and of a value: protobuf takes no longer ones.
  static constexpr int kLongestHeader = 5;
  static constexpr int kLongestNumber = 10;

  // Moves `at` behind the number.
  std::optional<uint64_t> Varint(uint64_t& at, uint64_t end, int longest) {
    uint64_t value = 0;
    for (int shift = 0; shift < 7 * longest && at < end; shift += 7) {
      const std::optional<uint8_t> byte = ByteAt(at++);
      if (!byte) return std::nullopt;
      value |= uint64_t{*byte & 0x7Fu} << shift;
      if ((*byte & 0x80u) == 0) return value;
    }
    return std::nullopt;
  }

  std::optional<uint8_t> ByteAt(uint64_t at) {
    if (at < first_ || at - first_ >= held_) {
      held_ = std::min<uint64_t>(window_.size(), source_.bytes() - at);
      first_ = at;
      if (!source_.ReadAt(at, std::span(window_).first(held_)).ok()) {
        held_ = 0;
        return std::nullopt;
      }
    }
    return static_cast<uint8_t>(window_[at - first_]);
  }

  const ByteSource& source_;
  std::array<std::byte, 4096> window_;
  uint64_t first_ = 0;
  uint64_t held_ = 0;
};

void AppendVarint(uint64_t value, std::string& to) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<char>(value | 0x80));
  to.push_back(static_cast<char>(value));
}

/// A message that is being put together.
class Rewritten {
 public:
  uint64_t length() const { return length_; }

  /// Ranges that touch become one.
  void AppendRange(ByteRange range) {
    length_ += range.length;
    if (range.length == 0) return;
    if (!pieces_.empty() && pieces_.back().literal.empty()) {
      ByteRange& last = pieces_.back().range;
      if (last.offset + last.length == range.offset) {
        last.length += range.length;
        return;
      }
    }
    pieces_.push_back({{}, range});
  }

  void AppendMessage(uint32_t field, Rewritten message) {
    std::string header;
    AppendVarint(uint64_t{field} << 3 | static_cast<uint64_t>(WireType::kLength), header);
    AppendVarint(message.length_, header);
    length_ += header.size() + message.length_;
    pieces_.push_back({std::move(header), {}});
    std::ranges::move(message.pieces_, std::back_inserter(pieces_));
  }

  std::vector<CondensedModel::Piece> TakePieces() { return std::move(pieces_); }

 private:
  std::vector<CondensedModel::Piece> pieces_;
  uint64_t length_ = 0;
};

class Condenser {
 public:
  explicit Condenser(const ByteSource& source) : source_(source), headers_(source) {}

  CondensedModel Run() {
    int graphs = 0;
    bool condensed = false;
    std::optional<Rewritten> model =
        Rewrite({0, source_.bytes()}, [&](const Field& field, Rewritten& message) {
          if (field.number != kModelGraph) return false;
          ++graphs;
          condensed = graphs == 1 && Nest(field, CondenseGraph(field.content), message);
          return condensed;
        });
    if (model && condensed) return {model->TakePieces(), std::move(left_out_)};
    return CondensedModel::Whole(source_);
  }

 private:
  /// The fields of a message; those of a length that `replace` does not append are appended as they are. nullopt where the
  /// bytes are no fields.
  template <typename Replace>
  std::optional<Rewritten> Rewrite(ByteRange range, const Replace& replace) {
    Rewritten message;
    const uint64_t end = range.offset + range.length;
    for (uint64_t at = range.offset; at < end;) {
      const std::optional<Field> field = headers_.FieldAt(at, end);
      if (!field) return std::nullopt;
      if (field->type != WireType::kLength || !replace(*field, message))
        message.AppendRange({field->begin, field->end() - field->begin});
      at = field->end();
    }
    return message;
  }

  static bool Nest(const Field& field, std::optional<Rewritten> content, Rewritten& message) {
    if (!content) return false;
    message.AppendMessage(field.number, *std::move(content));
    return true;
  }

  std::optional<Rewritten> CondenseGraph(ByteRange range) {
    return Rewrite(range, [&](const Field& field, Rewritten& message) {
      if (field.number != kGraphInitializer) return false;
      left_out_.emplace_back();
      std::optional<ByteRange> elements;
      std::optional<Rewritten> tensor = CondenseTensor(field.content, elements);
      if (!elements || !Nest(field, std::move(tensor), message)) return false;
      left_out_.back() = elements;
      return true;
    });
  }

  std::optional<Rewritten> CondenseTensor(ByteRange range, std::optional<ByteRange>& elements) {
    int seen = 0;
    std::optional<Rewritten> tensor = Rewrite(range, [&](const Field& field, Rewritten&) {
      if (field.number != kTensorRawData) return false;
      ++seen;
      if (field.content.length < kLongElements) return false;
      elements = field.content;
      return true;
    });
    if (seen != 1 || !tensor) elements.reset();
    return tensor;
  }

  const ByteSource& source_;
  HeaderReader headers_;
  std::vector<std::optional<ByteRange>> left_out_;
};

}  // namespace

CondensedModel CondensedModel::Whole(const ByteSource& source) {
  Rewritten whole;
  whole.AppendRange({0, source.bytes()});
  return {whole.TakePieces(), {}};
}

CondensedModel Condense(const ByteSource& source) { return Condenser(source).Run(); }

bool CondensedStream::Next(const void** data, int* size) {
  if (backed_up_ > 0) {
    *data = last_ + (last_size_ - backed_up_);
    *size = std::exchange(backed_up_, 0);
    return true;
  }
  if (!status_.ok() || piece_ == model_.pieces.size()) return false;
  const CondensedModel::Piece& piece = model_.pieces[piece_];
  const uint64_t all = piece.literal.empty() ? piece.range.length : piece.literal.size();
  uint64_t count = all - within_;
  if (piece.literal.empty()) {
    count = std::min<uint64_t>(count, kWindow);
    window_.resize(kWindow);
    status_ = source_.ReadAt(piece.range.offset + within_, std::span(window_).first(count));
    if (!status_.ok()) return false;
    last_ = window_.data();
  } else {
    last_ = reinterpret_cast<const std::byte*>(piece.literal.data());
  }
  within_ += count;
  if (within_ == all) {
    ++piece_;
    within_ = 0;
  }
  last_size_ = static_cast<int>(count);
  given_ += last_size_;
  *data = last_;
  *size = last_size_;
  return true;
}

void CondensedStream::BackUp(int count) { backed_up_ = count; }

bool CondensedStream::Skip(int count) {
  const void* data = nullptr;
  int size = 0;
  while (count > 0) {
    if (!Next(&data, &size)) return false;
    if (size > count) BackUp(size - count);
    count -= std::min(size, count);
  }
  return true;
}

}  // namespace octet
