#include "engine/tensor/wire_mapping.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "engine/tensor/byte_lookup.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Elements that are converted at a time: wire, reals and result stay in the first cache.
constexpr int64_t kBlock = 1024;
// Filling a table costs as much as converting about so many elements.
constexpr int64_t kLeastForTable = 1024;

// Reads the bytes of a tensor from its front.
class WireReader {
 public:
  explicit WireReader(const WireTensor& wire)
      : whole_(static_cast<const char*>(wire.data), wire.in_pieces() ? 0 : wire.bytes()),
        pieces_(wire.in_pieces() ? wire.pieces : std::span(&whole_, 1)) {}
  WireReader(const WireReader&) = delete;
  WireReader& operator=(const WireReader&) = delete;

  // The next bytes as they lie, `most` of them or fewer. Requires: there is one.
  std::string_view Next(size_t most) {
    SkipRead();
    const std::string_view next = pieces_.front().substr(at_, most);
    at_ += next.size();
    return next;
  }

  // The next elements as they lie, `most` of them or fewer: none where one is unaligned or lies across two pieces.
  std::span<const float> NextAligned(size_t most) {
    SkipRead();
    const char* begin = pieces_.front().data() + at_;
    if (reinterpret_cast<uintptr_t>(begin) % alignof(float) != 0) return {};
    const size_t count = std::min(most, (pieces_.front().size() - at_) / sizeof(float));
    at_ += count * sizeof(float);
    return {reinterpret_cast<const float*>(begin), count};
  }

  void Copy(void* dst, size_t bytes) {
    for (auto* to = static_cast<char*>(dst); bytes > 0;) {
      const std::string_view next = Next(bytes);
      std::memcpy(to, next.data(), next.size());
      to += next.size();
      bytes -= next.size();
    }
  }

 private:
  void SkipRead() {
    while (at_ == pieces_.front().size()) {
      pieces_ = pieces_.subspan(1);
      at_ = 0;
    }
  }

  const std::string_view whole_;
  std::span<const std::string_view> pieces_;
  size_t at_ = 0;  // In the first of pieces_.
};

// A difference times a factor: nothing that an instruction set could contract.
template <typename T>
[[gnu::always_inline]] inline void MapRun(const T* src, float scale, float zero_point, float* dst,
                                          int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    dst[i] = scale * (static_cast<float>(src[i]) - zero_point);
  }
}
OCTET_CPU_CLONES void Map(const uint8_t* src, float scale, float zero_point, float* dst,
                          int64_t count) {
  MapRun(src, scale, zero_point, dst, count);
}
OCTET_CPU_CLONES void Map(const int8_t* src, float scale, float zero_point, float* dst,
                          int64_t count) {
  MapRun(src, scale, zero_point, dst, count);
}
OCTET_CPU_CLONES void Map(const uint16_t* src, float scale, float zero_point, float* dst,
                          int64_t count) {
  MapRun(src, scale, zero_point, dst, count);
}
OCTET_CPU_CLONES void Map(const int16_t* src, float scale, float zero_point, float* dst,
                          int64_t count) {
  MapRun(src, scale, zero_point, dst, count);
}
OCTET_CPU_CLONES void Map(const float* src, float scale, float zero_point, float* dst,
                          int64_t count) {
  MapRun(src, scale, zero_point, dst, count);
}

// Calls run(count, channel) for the stretches of a tensor [N, C, ...] whose elements have one scale, in order.
template <typename Run>
void ForEachChannel(const WireMapping& mapping, const Shape& shape, const Run& run) {
  if (mapping.scale.size() == 1) return run(shape.elements(), size_t{0});
  const auto channels = static_cast<size_t>(shape[1]);
  const int64_t inner = shape.elements(2, shape.rank());
  const int64_t end = shape.elements();
  size_t c = 0;
  for (int64_t at = 0; at < end; at += inner) {
    run(inner, c);
    c = c + 1 == channels ? 0 : c + 1;
  }
}

// Reals of the next elements, as many as lie together, `most` or fewer, at most kBlock. Returns how many. F16 and BF16 are
// widened first.
template <typename T>
int64_t MapBlock(WireReader& reader, DType dtype, float scale, float zero_point, int64_t most,
                 float* reals) {
  if constexpr (sizeof(T) == 1) {
    const std::string_view next = reader.Next(static_cast<size_t>(most));
    most = std::ssize(next);
    Map(reinterpret_cast<const T*>(next.data()), scale, zero_point, reals, most);
  } else {
    // They may be unaligned, and lie across two pieces.
    alignas(64) std::array<T, kBlock> elements;
    reader.Copy(elements.data(), static_cast<size_t>(most) * sizeof(T));
    if constexpr (std::is_arithmetic_v<T>) {
      Map(elements.data(), scale, zero_point, reals, most);
    } else {
      RealFormat{dtype, std::nullopt}.Read(elements.data(), 0, most, reals);
      Map(reals, scale, zero_point, reals, most);
    }
  }
  return most;
}

// Takes reals in order and rounds them to a format, a block at a time.
class RealWriter {
 public:
  RealWriter(const RealFormat& format, void* dst) : format_(format), dst_(dst) {}

  // Where the next reals go; at most kBlock, and as many as `room` says.
  float* Next() {
    return format_.plain() ? static_cast<float*>(dst_) + at_ : reals_.data() + full_;
  }
  int64_t room() const { return format_.plain() ? kBlock : kBlock - full_; }
  void Advance(int64_t count) {
    if (format_.plain()) {
      at_ += count;
      return;
    }
    full_ += count;
    if (full_ == kBlock) Flush();
  }
  void Flush() {
    if (full_ > 0) format_.Write(reals_.data(), dst_, at_, full_);
    at_ += full_;
    full_ = 0;
  }

 private:
  const RealFormat& format_;
  void* const dst_;
  int64_t at_ = 0;
  int64_t full_ = 0;
  alignas(64) std::array<float, kBlock> reals_;
};

template <typename T>
void ConvertBlocks(const WireTensor& wire, const WireMapping& mapping, const RealFormat& format,
                   void* dst) {
  WireReader reader(wire);
  RealWriter writer(format, dst);
  ForEachChannel(mapping, wire.shape(), [&](int64_t count, size_t c) {
    while (count > 0) {
      const int64_t block =
          MapBlock<T>(reader, mapping.dtype, mapping.scale[c], mapping.zero_point[c],
                      std::min(count, writer.room()), writer.Next());
      writer.Advance(block);
      count -= block;
    }
  });
  writer.Flush();
}

// What every byte of the wire becomes.
template <typename T>
ByteTable TableOf(float scale, float zero_point, const RealFormat& format) {
  std::array<float, 256> reals;
  for (int i = 0; i < 256; ++i) {
    reals[static_cast<size_t>(i)] =
        scale * (static_cast<float>(std::bit_cast<T>(static_cast<uint8_t>(i))) - zero_point);
  }
  ByteTable table;
  format.Write(reals.data(), table.data(), 0, 256);
  return table;
}

// Requires: an 8-bit format.
template <typename T>
void LookUp(const WireTensor& wire, const WireMapping& mapping, const RealFormat& format,
            void* dst) {
  std::vector<ByteTable> tables;
  tables.reserve(mapping.scale.size());
  for (size_t c = 0; c < mapping.scale.size(); ++c) {
    tables.push_back(TableOf<T>(mapping.scale[c], mapping.zero_point[c], format));
  }
  WireReader reader(wire);
  auto* to = static_cast<uint8_t*>(dst);
  ForEachChannel(mapping, wire.shape(), [&](int64_t count, size_t c) {
    while (count > 0) {
      const std::string_view next = reader.Next(static_cast<size_t>(count));
      LookUpBytes(tables[c], reinterpret_cast<const uint8_t*>(next.data()), to,
                  static_cast<int64_t>(next.size()));
      to += next.size();
      count -= static_cast<int64_t>(next.size());
    }
  });
}

template <typename T>
void ConvertAs(const WireTensor& wire, const WireMapping& mapping, const RealFormat& format,
               void* dst) {
  if constexpr (sizeof(T) == 1) {
    const auto tables = static_cast<int64_t>(mapping.scale.size());
    if (IsInt8(format.stored) && wire.elements() >= tables * kLeastForTable) {
      return LookUp<T>(wire, mapping, format, dst);
    }
  }
  ConvertBlocks<T>(wire, mapping, format, dst);
}

}  // namespace

absl::Status CheckWireMapping(const WireMapping& mapping, const Shape& input_shape) {
  switch (mapping.dtype) {
    case DType::kU8:
    case DType::kI8:
    case DType::kU16:
    case DType::kI16:
    case DType::kF16:
    case DType::kBF16:
      break;
    default:
      return InvalidArgument(
          "wire datatype: expected UINT8, INT8, UINT16, INT16, FP16 or BF16, got {}",
          DTypeName(mapping.dtype));
  }
  if (mapping.scale.size() != mapping.zero_point.size()) {
    return InvalidArgument("wire mapping: expected as many zero points as scales ({}), got {}",
                           mapping.scale.size(), mapping.zero_point.size());
  }
  const int64_t channels = input_shape.rank() > 1 ? input_shape[1] : 1;
  if (mapping.scale.size() != 1 && static_cast<int64_t>(mapping.scale.size()) != channels) {
    return InvalidArgument("wire mapping: expected 1 scale or one per index of axis 1 ({}), got {}",
                           channels, mapping.scale.size());
  }
  for (size_t c = 0; c < mapping.scale.size(); ++c) {
    if (!std::isfinite(mapping.scale[c]) || mapping.scale[c] <= 0) {
      return InvalidArgument("wire mapping: expected positive finite scales, got {}",
                             mapping.scale[c]);
    }
    if (!std::isfinite(mapping.zero_point[c])) {
      return InvalidArgument("wire mapping: expected finite zero points, got {}",
                             mapping.zero_point[c]);
    }
  }
  return absl::OkStatus();
}

void ConvertFromWire(const WireTensor& wire, const WireMapping& mapping, const RealFormat& format,
                     void* dst) {
  if (wire.elements() == 0) return;
  switch (mapping.dtype) {
    case DType::kU8:
      return ConvertAs<uint8_t>(wire, mapping, format, dst);
    case DType::kI8:
      return ConvertAs<int8_t>(wire, mapping, format, dst);
    case DType::kU16:
      return ConvertAs<uint16_t>(wire, mapping, format, dst);
    case DType::kI16:
      return ConvertAs<int16_t>(wire, mapping, format, dst);
    case DType::kF16:
      return ConvertAs<Half>(wire, mapping, format, dst);
    case DType::kBF16:
      return ConvertAs<BFloat16>(wire, mapping, format, dst);
    default:
      break;  // CheckWireMapping refuses the others.
  }
}

void ConvertFromWire(const WireTensor& wire, const RealFormat& format, void* dst) {
  if (format.plain()) return wire.CopyTo(dst);
  WireReader reader(wire);
  alignas(64) std::array<float, kBlock> reals;
  const int64_t end = wire.elements();
  for (int64_t offset = 0; offset < end;) {
    std::span<const float> next = reader.NextAligned(static_cast<size_t>(end - offset));
    if (next.empty()) {
      next = std::span(reals).first(static_cast<size_t>(std::min(kBlock, end - offset)));
      reader.Copy(reals.data(), next.size_bytes());
    }
    format.Write(next.data(), dst, offset, std::ssize(next));
    offset += std::ssize(next);
  }
}

}  // namespace octet
