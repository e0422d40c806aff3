#include "engine/onnx/tensor_proto.h"

#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "engine/tensor/status.h"

namespace octet {
namespace {

using onnx::TensorProto;

static_assert(std::endian::native == std::endian::little, "raw_data is little-endian");

// Where two types of ONNX are one here, the first is what is written.
constexpr std::array<std::pair<TensorProto::DataType, DType>, 16> kTypes = {{
    {TensorProto::FLOAT, DType::kF32},
    {TensorProto::UINT8, DType::kU8},
    {TensorProto::INT8, DType::kI8},
    {TensorProto::UINT16, DType::kU16},
    {TensorProto::INT16, DType::kI16},
    {TensorProto::INT32, DType::kI32},
    {TensorProto::INT64, DType::kI64},
    {TensorProto::BOOL, DType::kBool},
    {TensorProto::FLOAT16, DType::kF16},
    {TensorProto::DOUBLE, DType::kF64},
    {TensorProto::UINT32, DType::kU32},
    {TensorProto::UINT64, DType::kU64},
    {TensorProto::BFLOAT16, DType::kBF16},
    {TensorProto::STRING, DType::kString},
    {TensorProto::INT4, DType::kI8},
    {TensorProto::UINT4, DType::kU8},
}};

absl::Status CountError(int64_t expected, int64_t got, std::string_view field) {
  return InvalidArgument("number of elements in {}: expected {} by the shape, got {}", field,
                         expected, got);
}

// A typed field whose element type is the tensor's own.
template <typename T, typename Field>
absl::Status CopySame(const Field& field, std::string_view name, Tensor& tensor) {
  if (field.size() != tensor.elements()) return CountError(tensor.elements(), field.size(), name);
  const std::span<T> out = tensor.mutable_span<T>();
  for (int i = 0; i < field.size(); ++i) out[i] = field.Get(i);
  return absl::OkStatus();
}

// A typed field that is wider than the tensor's elements, which must lie in [low, high].
template <typename T, typename Field>
absl::Status CopyNarrow(const Field& field, std::string_view name, int64_t low, int64_t high,
                        Tensor& tensor) {
  if (field.size() != tensor.elements()) return CountError(tensor.elements(), field.size(), name);
  T* out = static_cast<T*>(tensor.mutable_data());
  for (int i = 0; i < field.size(); ++i) {
    const auto v = static_cast<int64_t>(field.Get(i));
    if (v < low || v > high) {
      return InvalidArgument("element {} does not fit {}: {}", i, DTypeName(tensor.dtype()), v);
    }
    out[i] = static_cast<T>(v);
  }
  return absl::OkStatus();
}

template <typename T, typename Field>
absl::Status CopyNarrow(const Field& field, std::string_view name, Tensor& tensor) {
  using Limits = std::numeric_limits<T>;
  return CopyNarrow<T>(field, name, Limits::min(), Limits::max(), tensor);
}

absl::Status CopyTyped(const TensorProto& proto, Tensor& tensor) {
  constexpr std::string_view kInt32 = "int32_data";
  switch (tensor.dtype()) {
    case DType::kUndefined:
    case DType::kString:
      break;
    case DType::kF32:
      return CopySame<float>(proto.float_data(), "float_data", tensor);
    case DType::kF64:
      return CopySame<double>(proto.double_data(), "double_data", tensor);
    case DType::kI64:
      return CopySame<int64_t>(proto.int64_data(), "int64_data", tensor);
    case DType::kU64:
      return CopySame<uint64_t>(proto.uint64_data(), "uint64_data", tensor);
    case DType::kU32:
      return CopyNarrow<uint32_t>(proto.uint64_data(), "uint64_data", tensor);
    case DType::kI32:
      return CopySame<int32_t>(proto.int32_data(), kInt32, tensor);
    case DType::kI16:
      return CopyNarrow<int16_t>(proto.int32_data(), kInt32, tensor);
    case DType::kU16:
      return CopyNarrow<uint16_t>(proto.int32_data(), kInt32, tensor);
    case DType::kI8:
      return CopyNarrow<int8_t>(proto.int32_data(), kInt32, tensor);
    case DType::kU8:
      return CopyNarrow<uint8_t>(proto.int32_data(), kInt32, tensor);
    case DType::kBool:
      return CopyNarrow<uint8_t>(proto.int32_data(), kInt32, 0, 1, tensor);
    // The bits of the float; some writers extend their sign.
    case DType::kF16:
    case DType::kBF16:
      return CopyNarrow<uint16_t>(proto.int32_data(), kInt32, -32768, 65535, tensor);
  }
  return Internal("tensor without an element type");
}

// int32_data of a 4-bit type: a number stands for a byte, which some writers extend the sign of.
absl::Status CopyPacked(const TensorProto& proto, std::span<std::byte> packed) {
  if (proto.int32_data_size() != std::ssize(packed)) {
    return InvalidArgument(
        "number of elements in int32_data, a byte of two each: expected {} by the shape, got {}",
        packed.size(), proto.int32_data_size());
  }
  for (int i = 0; i < proto.int32_data_size(); ++i) {
    const int32_t v = proto.int32_data(i);
    if (v < -128 || v > 255)
      return InvalidArgument("element {} of int32_data is no byte: {}", i, v);
    packed[static_cast<size_t>(i)] = static_cast<std::byte>(v & 0xff);
  }
  return absl::OkStatus();
}

// What is packed lies in the last bytes of the tensor: a byte is read before anything is written to its place.
template <typename T>
void UnpackInPlace(Tensor& tensor) {
  const int64_t count = tensor.elements();
  T* out = tensor.mutable_span<T>().data();
  const T* packed = out + (count - (count + 1) / 2);
  for (int64_t i = 0; i < count; i += 2) {
    const uint32_t pair = static_cast<uint8_t>(packed[i / 2]);
    // Shifted up and back, so that a sign is extended.
    out[i] = static_cast<T>(static_cast<T>(pair << 4) >> 4);
    if (i + 1 < count) out[i + 1] = static_cast<T>(static_cast<T>(pair) >> 4);
  }
}

int TypedFieldsInUse(const TensorProto& proto) {
  return (proto.float_data_size() > 0) + (proto.int32_data_size() > 0) +
         (proto.int64_data_size() > 0) + (proto.double_data_size() > 0) +
         (proto.uint64_data_size() > 0) + (proto.string_data_size() > 0);
}

absl::Status CheckOneEncoding(const TensorProto& proto, uint64_t raw_bytes) {
  const bool external = proto.data_location() == TensorProto::EXTERNAL;
  if (proto.has_segment()) return Unimplemented("tensor in segments");
  if (TypedFieldsInUse(proto) + external + (raw_bytes > 0) > 1) {
    return InvalidArgument("elements in more than one encoding");
  }
  return absl::OkStatus();
}

std::optional<uint64_t> ParseUnsigned(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  // Offsets beyond a signed 64-bit one exist on no file system.
  return whole && value <= uint64_t{std::numeric_limits<int64_t>::max()} ? std::optional(value)
                                                                         : std::nullopt;
}

void CleanBools(Tensor& tensor) {
  if (tensor.dtype() != DType::kBool) return;
  auto* bytes = static_cast<uint8_t*>(tensor.mutable_data());
  for (int64_t i = 0; i < tensor.elements(); ++i) bytes[i] = bytes[i] != 0;
}

}  // namespace

absl::StatusOr<DType> DTypeFromOnnx(int32_t data_type) {
  for (const auto& [onnx_type, dtype] : kTypes) {
    if (onnx_type == data_type) return dtype;
  }
  if (data_type == TensorProto::UNDEFINED || !TensorProto::DataType_IsValid(data_type)) {
    return InvalidArgument("no element type of ONNX: {}", data_type);
  }
  return Unimplemented("unsupported element type: {}",
                       TensorProto::DataType_Name(static_cast<TensorProto::DataType>(data_type)));
}

bool IsFourBits(int32_t data_type) {
  return data_type == TensorProto::INT4 || data_type == TensorProto::UINT4;
}

std::string_view FourBitName(DType held_as) { return held_as == DType::kI8 ? "INT4" : "UINT4"; }

uint64_t FileBytes(int32_t data_type, int64_t elements) {
  const auto count = static_cast<uint64_t>(elements);
  if (IsFourBits(data_type)) return count / 2 + count % 2;
  const absl::StatusOr<DType> dtype = DTypeFromOnnx(data_type);
  return dtype.ok() ? count * SizeOf(*dtype) : 0;
}

TensorProto::DataType DTypeToOnnx(DType dtype) {
  for (const auto& [onnx_type, known] : kTypes) {
    if (known == dtype) return onnx_type;
  }
  return TensorProto::UNDEFINED;
}

absl::StatusOr<ExternalRange> ExternalRangeOf(const TensorProto& proto) {
  ExternalRange range;
  for (const onnx::StringStringEntryProto& entry : proto.external_data()) {
    if (entry.key() == "location") {
      range.location = entry.value();
    } else if (entry.key() == "offset" || entry.key() == "length") {
      const std::optional<uint64_t> number = ParseUnsigned(entry.value());
      if (!number) return InvalidArgument("{} of external data is no number", entry.key());
      if (entry.key() == "offset") {
        range.offset = *number;
      } else {
        range.length = number;
      }
    }
  }
  return range;
}

absl::StatusOr<Tensor> TensorReader::Read(TensorProto& proto,
                                          const std::optional<ByteRange>& left_out) {
  absl::StatusOr<Tensor> tensor = ReadUnnamed(proto, left_out);
  if (!tensor.ok()) return Annotate(tensor.status(), Format("tensor '{}'", proto.name()));
  std::string name = std::move(*proto.mutable_name());
  proto = TensorProto();
  proto.set_name(std::move(name));
  return tensor;
}

absl::StatusOr<Tensor> TensorReader::ReadUnnamed(TensorProto& proto,
                                                 const std::optional<ByteRange>& left_out) {
  const uint64_t raw_bytes = left_out ? left_out->length : proto.raw_data().size();
  OCTET_ASSIGN_OR_RETURN(const DType dtype, DTypeFromOnnx(proto.data_type()));
  OCTET_RETURN_IF_ERROR(CheckOneEncoding(proto, raw_bytes));
  if (proto.dims_size() > kMaxRank) {
    return InvalidArgument("rank {} is above {}", proto.dims_size(), kMaxRank);
  }
  const std::span<const int64_t> dims(proto.dims().data(), static_cast<size_t>(proto.dims_size()));
  const Shape shape(dims);
  const std::optional<int64_t> elements = CheckedElements(dims);
  if (!elements) return InvalidArgument("impossible shape: {}", shape.ToString());
  const bool external = proto.data_location() == TensorProto::EXTERNAL;
  ExternalRange range;
  if (external) {
    OCTET_ASSIGN_OR_RETURN(range, ExternalRangeOf(proto));
  }
  const Place place(range.location, range.offset, proto.data_type(), {dims.begin(), dims.end()});
  const auto known = external ? shared_.find(place) : shared_.end();
  // At most 2^62 elements: compare before multiplying.
  if (known == shared_.end() && static_cast<uint64_t>(*elements) > budget_ / SizeOf(dtype)) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     "shape {} of {} is over the limit of tensor bytes: {} are left",
                     shape.ToString(), DTypeName(dtype), budget_);
  }
  if (dtype == DType::kString) {
    if (raw_bytes > 0) return InvalidArgument("STRING elements are in string_data alone");
    return ReadStrings(proto, shape);
  }
  const uint64_t bytes = static_cast<uint64_t>(*elements) * SizeOf(dtype);
  const bool packed = IsFourBits(proto.data_type());
  const uint64_t file_bytes = FileBytes(proto.data_type(), *elements);

  // What is there is measured before memory is taken for what the shape claims.
  const bool raw = !external && TypedFieldsInUse(proto) == 0;
  if (external) {
    if (external_ == nullptr) return InvalidArgument("external data in a model without a folder");
    OCTET_RETURN_IF_ERROR(external_->Check(range, file_bytes));
    if (known != shared_.end()) return Tensor(dtype, shape, known->second, known->second.get());
  } else if (raw && raw_bytes != file_bytes) {
    return InvalidArgument("bytes of raw_data for shape {} of {}: expected {}, got {}",
                           shape.ToString(), packed ? FourBitName(dtype) : DTypeName(dtype),
                           file_bytes, raw_bytes);
  } else if (!raw && bytes > proto.ByteSizeLong() * 8) {
    return InvalidArgument("too few elements for shape {}", shape.ToString());
  }
  const std::shared_ptr<std::byte[]> memory = memory_.Allocate(bytes);
  Tensor tensor(dtype, shape, memory, memory.get());
  const std::span<std::byte> data =
      std::span(static_cast<std::byte*>(tensor.mutable_data()), bytes).last(file_bytes);
  if (external) {
    OCTET_RETURN_IF_ERROR(external_->Read(range, data));
  } else if (left_out) {
    OCTET_RETURN_IF_ERROR(source_->ReadAt(left_out->offset, data));
  } else if (raw) {
    std::ranges::copy(std::as_bytes(std::span(proto.raw_data())), data.begin());
  } else if (packed) {
    OCTET_RETURN_IF_ERROR(CopyPacked(proto, data));
  } else {
    OCTET_RETURN_IF_ERROR(CopyTyped(proto, tensor));
  }
  if (packed) dtype == DType::kI8 ? UnpackInPlace<int8_t>(tensor) : UnpackInPlace<uint8_t>(tensor);
  CleanBools(tensor);
  budget_ -= bytes;
  if (external) shared_.emplace(place, memory);
  return tensor;
}

// Strings have one encoding, in which nothing but their own size says how long they are.
absl::StatusOr<Tensor> TensorReader::ReadStrings(const TensorProto& proto, Shape shape) {
  if (proto.data_location() == TensorProto::EXTERNAL)
    return InvalidArgument("STRING elements are in string_data alone");
  if (proto.string_data_size() != shape.elements())
    return CountError(shape.elements(), proto.string_data_size(), "string_data");
  const std::vector<std::string_view> texts(proto.string_data().begin(), proto.string_data().end());
  const ConstTensorView view{texts.data(), {DType::kString, shape}};
  const uint64_t bytes = MemoryBytes(view);
  if (bytes > budget_) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     "{} bytes of strings are over the limit of tensor bytes: {} are left", bytes,
                     budget_);
  }
  budget_ -= bytes;
  return Tensor::Strings(std::move(shape), texts);
}

void WriteTensor(const Tensor& tensor, TensorProto& proto) {
  proto.set_data_type(DTypeToOnnx(tensor.dtype()));
  for (const int64_t d : tensor.shape().dims()) proto.add_dims(d);
  if (tensor.dtype() != DType::kString) {
    proto.set_raw_data(tensor.data(), tensor.bytes());
    return;
  }
  for (const std::string_view text : tensor.span<std::string_view>())
    proto.add_string_data(text.data(), text.size());
}

}  // namespace octet
