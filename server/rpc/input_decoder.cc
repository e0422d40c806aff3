#include "server/rpc/input_decoder.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "engine/tensor/bytes_elements.h"
#include "engine/tensor/status.h"
#include "server/scheduling/request_check.h"

namespace octet {
namespace {

using Input = inference::ModelInferRequest::InferInputTensor;

/// The position of the input in the signature. Clients nearly always keep the order: `hint` first.
absl::StatusOr<size_t> FindInput(const Signature& signature, const std::string& name, size_t hint) {
  const auto& inputs = signature.inputs;
  if (hint < inputs.size() && inputs[hint].name == name) return hint;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].name == name) return i;
  }
  return InvalidArgument("unknown input \"{}\", expected {}", name, QuotedNames(inputs));
}

template <typename Field>
WireBytes BytesOf(const Field& field) {
  const auto bytes = std::as_bytes(std::span(field.data(), static_cast<size_t>(field.size())));
  return std::string_view(reinterpret_cast<const char*>(bytes.data()),
                          bytes.size());  // NOLINT(*-reinterpret-cast)
}

/// Copies 32-bit elements into the narrower type T.
template <typename T, typename Field>
absl::StatusOr<WireBytes> Narrow(const Input& input, const Field& field, DecodedInputs& decoded) {
  auto& bytes = decoded.narrowed.emplace_back(static_cast<size_t>(field.size()) * sizeof(T));
  std::byte* at = bytes.data();
  for (const auto element : field) {
    const T narrow = static_cast<T>(element);
    if (narrow != element) {
      return InvalidArgument("input \"{}\": contents, expected {} .. {}, got {}", input.name(),
                             std::numeric_limits<T>::min(), std::numeric_limits<T>::max(), element);
    }
    std::memcpy(at, &narrow, sizeof(T));
    at += sizeof(T);
  }
  return BytesOf(bytes);
}

int TotalElements(const inference::InferTensorContents& c) {
  return c.bool_contents_size() + c.int_contents_size() + c.int64_contents_size() +
         c.uint_contents_size() + c.uint64_contents_size() + c.fp32_contents_size() +
         c.fp64_contents_size() + c.bytes_contents_size();
}

/// `field` unless another one holds elements too.
template <typename Field>
absl::StatusOr<const Field*> Only(const Input& input, const Field& field, std::string_view name) {
  if (TotalElements(input.contents()) != field.size()) {
    return InvalidArgument("input \"{}\": contents of {} go into {} alone", input.name(),
                           input.datatype(), name);
  }
  return &field;
}

/// The bytes of typed contents as elements of `dtype`.
absl::StatusOr<WireBytes> TypedContents(const Input& input, DType dtype, DecodedInputs& decoded) {
  const inference::InferTensorContents& c = input.contents();
  const auto as_they_are = [&](const auto& field,
                               std::string_view name) -> absl::StatusOr<WireBytes> {
    OCTET_ASSIGN_OR_RETURN(const auto* only, Only(input, field, name));
    return BytesOf(*only);
  };
  const auto signed_32 = [&] { return Only(input, c.int_contents(), "int_contents"); };
  const auto unsigned_32 = [&] { return Only(input, c.uint_contents(), "uint_contents"); };
  switch (dtype) {
    case DType::kBool:
      return as_they_are(c.bool_contents(), "bool_contents");
    case DType::kI8: {
      OCTET_ASSIGN_OR_RETURN(const auto* field, signed_32());
      return Narrow<int8_t>(input, *field, decoded);
    }
    case DType::kI16: {
      OCTET_ASSIGN_OR_RETURN(const auto* field, signed_32());
      return Narrow<int16_t>(input, *field, decoded);
    }
    case DType::kU8: {
      OCTET_ASSIGN_OR_RETURN(const auto* field, unsigned_32());
      return Narrow<uint8_t>(input, *field, decoded);
    }
    case DType::kU16: {
      OCTET_ASSIGN_OR_RETURN(const auto* field, unsigned_32());
      return Narrow<uint16_t>(input, *field, decoded);
    }
    case DType::kI32:
      return as_they_are(c.int_contents(), "int_contents");
    case DType::kU32:
      return as_they_are(c.uint_contents(), "uint_contents");
    case DType::kI64:
      return as_they_are(c.int64_contents(), "int64_contents");
    case DType::kU64:
      return as_they_are(c.uint64_contents(), "uint64_contents");
    case DType::kF32:
      return as_they_are(c.fp32_contents(), "fp32_contents");
    case DType::kF64:
      return as_they_are(c.fp64_contents(), "fp64_contents");
    case DType::kString: {
      OCTET_ASSIGN_OR_RETURN(const auto* field, Only(input, c.bytes_contents(), "bytes_contents"));
      return BytesOf(decoded.strings.emplace_back(field->begin(), field->end()));
    }
    case DType::kF16:
    case DType::kBF16:
      // No elements come in no field.
      if (TotalElements(c) == 0 &&
          CheckedElements({input.shape().data(), static_cast<size_t>(input.shape_size())}) == 0) {
        return WireBytes();
      }
      break;
    case DType::kUndefined:
      break;
  }
  return InvalidArgument("input \"{}\": {} comes in raw_input_contents only", input.name(),
                         input.datatype());
}

/// One copy of bytes that came in pieces, or that are changed.
std::string& Copy(const WireBytes& raw, DecodedInputs& decoded) {
  std::string& whole = decoded.copied.emplace_back();
  whole.resize_and_overwrite(raw.size(), [&](char* to, size_t size) {
    raw.CopyTo(to);
    return size;
  });
  return whole;
}

/// The largest byte, without a branch for each.
uint8_t LargestByte(std::string_view bytes) {
  uint8_t largest = 0;
  for (const char byte : bytes) largest = std::max(largest, static_cast<uint8_t>(byte));
  return largest;
}

/// Bytes of BOOL as kernels may read them, which are C++'s: 0 or 1. Any other one is true, too, as it is for a Cast; those that
/// need no change stay where they are.
WireBytes Truths(WireBytes raw, DecodedInputs& decoded) {
  const auto is_clean = [](std::string_view piece) { return LargestByte(piece) <= 1; };
  if (raw.in_pieces() ? std::ranges::all_of(raw.pieces(), is_clean) : is_clean(raw.whole())) {
    return raw;
  }
  std::string& truths = Copy(raw, decoded);
  for (char& byte : truths) byte = static_cast<char>(byte != 0);
  return {truths};
}

/// Raw contents as elements of `dtype`. A type that the model does not take is CheckInput's to refuse.
absl::StatusOr<WireBytes> RawContents(const Input& input, WireBytes raw, DType dtype,
                                      const InputRecipe& recipe, DecodedInputs& decoded) {
  if (!recipe.Accepts(dtype)) return raw;
  if (dtype == DType::kBool) return Truths(raw, decoded);
  if (dtype != DType::kString) return raw;
  if (raw.in_pieces()) raw = WireBytes(Copy(raw, decoded));
  std::vector<std::string_view>& elements = decoded.strings.emplace_back();
  const std::optional<int64_t> count =
      CheckedElements({input.shape().data(), static_cast<size_t>(input.shape_size())});
  if (!count) return WireBytes();  // A shape that CheckInput refuses.
  OCTET_RETURN_IF_ERROR(
      Annotate(ReadBytesElements(raw.whole(), static_cast<uint64_t>(*count), elements),
               Format("input \"{}\": raw_input_contents", input.name())));
  return BytesOf(elements);
}

absl::Status DecodeInput(const Input& input, const std::optional<WireBytes>& raw,
                         const TensorInfo& expected, const InputRecipe& recipe, WireTensor& view,
                         DecodedInputs& decoded) {
  // Before anything is said of each.
  if (input.shape_size() > kMaxExtents) {
    return InvalidArgument("input \"{}\": shape, expected at most {} extents, got {}", input.name(),
                           kMaxExtents, input.shape_size());
  }
  const std::optional<DType> dtype = ParseDType(input.datatype());
  if (!dtype) {
    return InvalidArgument("input \"{}\": datatype, expected {}, got \"{}\"", input.name(),
                           recipe.AcceptedTypes(), input.datatype());
  }
  WireBytes bytes;
  if (raw) {
    if (input.has_contents() && TotalElements(input.contents()) > 0) {
      return InvalidArgument("input \"{}\": both contents and raw_input_contents", input.name());
    }
    OCTET_ASSIGN_OR_RETURN(bytes, RawContents(input, *raw, *dtype, recipe, decoded));
  } else {
    OCTET_ASSIGN_OR_RETURN(bytes, TypedContents(input, *dtype, decoded));
  }
  const std::span<const int64_t> dims(input.shape().data(),
                                      static_cast<size_t>(input.shape_size()));
  OCTET_RETURN_IF_ERROR(CheckInput(expected, recipe, *dtype, dims, bytes.size()));
  view = WireTensor(bytes, {*dtype, Shape(dims)});
  return absl::OkStatus();
}

/// The open extents of an input that follow from a body of raw bytes: none, or the one at the index.
absl::StatusOr<std::optional<int>> FindOpenExtent(const TensorInfo& input, int first) {
  std::optional<int> open;
  for (int i = first; i < input.shape.rank(); ++i) {
    if (input.shape[i] != kUnknownDim) continue;
    if (open) {
      return InvalidArgument(
          "input \"{}\": its shape does not follow from raw bytes, expected at most one open "
          "extent "
          "beside the rows, got {}",
          input.name, input.shape.ToString());
    }
    open = i;
  }
  return open;
}

/// The shape of one row of `input`, or of all of it where the model does not batch, of which `body` is all bytes.
absl::StatusOr<Shape> ShapeOfRawBytes(const TensorInfo& input, bool batches,
                                      std::string_view body) {
  if (!input.rank_known) {
    return InvalidArgument("input \"{}\": its shape does not follow from raw bytes: any rank fits",
                           input.name);
  }
  Shape shape = input.shape;
  if (batches) shape[0] = 1;
  if (input.dtype == DType::kString) {
    for (int i = 0; i < shape.rank(); ++i) {
      if (shape[i] == kUnknownDim) shape[i] = 1;
    }
    if (CheckedElements(shape.dims()) == 1) return shape;
    return InvalidArgument("input \"{}\": raw bytes are one element, the model takes {}",
                           input.name, input.shape.ToString());
  }
  OCTET_ASSIGN_OR_RETURN(const std::optional<int> open, FindOpenExtent(input, batches ? 1 : 0));
  if (!open) return shape;
  shape[*open] = 1;
  const std::optional<int64_t> elements = CheckedElements(shape.dims());
  const uint64_t step = elements ? static_cast<uint64_t>(*elements) * SizeOf(input.dtype) : 0;
  if (step == 0 || body.size() % step != 0) {
    return InvalidArgument("input \"{}\": raw bytes, expected a multiple of {} for {} {}, got {}",
                           input.name, step, DTypeName(input.dtype), input.shape.ToString(),
                           body.size());
  }
  shape[*open] = static_cast<int64_t>(body.size() / step);
  return shape;
}

}  // namespace

std::string QuotedNames(std::span<const TensorInfo> tensors) {
  std::string text;
  for (const TensorInfo& tensor : tensors) {
    text += Format("{}\"{}\"", text.empty() ? "" : ", ", tensor.name);
  }
  return text;
}

absl::StatusOr<RawInputs> RawInputsOf(const inference::ModelInferRequest& request,
                                      std::span<const WireBytes> raw_contents) {
  RawInputs inputs(static_cast<size_t>(request.inputs_size()));
  if (raw_contents.empty()) return inputs;
  size_t next = 0;
  for (int i = 0; i < request.inputs_size(); ++i) {
    if (NamesSharedMemory(request.inputs(i).parameters())) continue;
    if (next < raw_contents.size()) inputs[static_cast<size_t>(i)] = raw_contents[next];
    ++next;
  }
  if (next != raw_contents.size()) {
    return InvalidArgument("raw_input_contents: expected one per input ({}), got {}", next,
                           raw_contents.size());
  }
  return inputs;
}

absl::Status ReadSharedInputs(const inference::ModelInferRequest& request,
                              const SharedMemory* memory, RawInputs& raw_inputs,
                              DecodedInputs& decoded) {
  uint64_t left = memory == nullptr ? 0 : memory->max_request_bytes();
  for (int i = 0; i < request.inputs_size(); ++i) {
    const Input& input = request.inputs(i);
    if (!NamesSharedMemory(input.parameters())) continue;
    const std::string where = Format("input \"{}\"", input.name());
    std::optional<WireBytes>& raw = raw_inputs[static_cast<size_t>(i)];
    if (raw || TotalElements(input.contents()) > 0) {
      return InvalidArgument("{}: both contents and shared memory", where);
    }
    OCTET_ASSIGN_OR_RETURN(const SharedSlice slice,
                           FindSharedSlice(where, input.parameters(), memory));
    if (slice.bytes > left) {
      return InvalidArgument(
          "{}: shared memory, expected at most {} bytes in a request, got {} more", where,
          memory->max_request_bytes(), slice.bytes);
    }
    left -= slice.bytes;
    std::string& bytes = decoded.copied.emplace_back();
    OCTET_RETURN_IF_ERROR(Annotate(slice.region->Read(slice.offset, slice.bytes, bytes), where));
    raw = WireBytes(bytes);
  }
  return absl::OkStatus();
}

absl::Status DescribeOnlyInput(const Signature& signature, std::string& body,
                               inference::ModelInferRequest& request, RawInputs& raw_inputs) {
  if (signature.inputs.size() != 1) {
    return InvalidArgument("raw bytes are one input, the model takes {}: {}",
                           signature.inputs.size(), QuotedNames(signature.inputs));
  }
  const TensorInfo& expected = signature.inputs[0];
  OCTET_ASSIGN_OR_RETURN(const Shape shape, ShapeOfRawBytes(expected, signature.batches, body));
  Input& input = *request.add_inputs();
  input.set_name(expected.name);
  input.set_datatype(std::string(DTypeName(expected.dtype)));
  for (const int64_t extent : shape) input.add_shape(extent);
  std::optional<WireBytes>& raw = raw_inputs.emplace_back();
  if (expected.dtype == DType::kString) {
    input.mutable_contents()->add_bytes_contents(std::move(body));
  } else {
    raw = WireBytes(body);
  }
  return absl::OkStatus();
}

absl::Status DecodeInputs(const inference::ModelInferRequest& request, const RawInputs& raw_inputs,
                          const Signature& signature, std::span<const InputRecipe> recipes,
                          int64_t max_batch, DecodedInputs& decoded) {
  decoded.views.assign(signature.inputs.size(), {});
  for (int i = 0; i < request.inputs_size(); ++i) {
    const Input& input = request.inputs(i);
    OCTET_ASSIGN_OR_RETURN(const size_t place,
                           FindInput(signature, input.name(), static_cast<size_t>(i)));
    WireTensor& view = decoded.views[place];
    if (view.dtype() != DType::kUndefined) {
      return InvalidArgument("input \"{}\" comes twice", input.name());
    }
    OCTET_RETURN_IF_ERROR(DecodeInput(input, raw_inputs[static_cast<size_t>(i)],
                                      signature.inputs[place], recipes[place], view, decoded));
  }
  for (size_t i = 0; i < decoded.views.size(); ++i) {
    if (decoded.views[i].dtype() == DType::kUndefined) {
      return InvalidArgument("missing input \"{}\", expected {}", signature.inputs[i].name,
                             QuotedNames(signature.inputs));
    }
  }
  OCTET_ASSIGN_OR_RETURN(decoded.rows, CheckRows(signature, decoded.views, max_batch));
  return absl::OkStatus();
}

}  // namespace octet
