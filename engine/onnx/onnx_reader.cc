// ReadOnnxFile, ReadOnnxBytes, ReadTensorFile: the ways in.
#include <algorithm>
#include <exception>
#include <limits>
#include <map>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream.h>
#include <onnx/onnx-data_pb.h>
#include <onnx/onnx_pb.h>

#include "engine/onnx/condensed_model.h"
#include "engine/onnx/external_data.h"
#include "engine/onnx/graph_reader.h"
#include "engine/onnx/onnx_file.h"
#include "engine/onnx/tensor_proto.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

namespace io = google::protobuf::io;

// What protobuf reads at most, whatever the configuration says.
constexpr uint64_t kProtobufLimit = std::numeric_limits<int>::max();
// Sub-graphs and types nest; nothing that Octet reads is deeper than a few levels.
constexpr int kMaxNesting = 64;

absl::Status CheckSize(uint64_t bytes, uint64_t limit) {
  limit = std::min(limit, kProtobufLimit);
  if (bytes <= limit) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted,
                   "file is too large: at most {} bytes, got {}", limit, bytes);
}

// Parses all of `stream`; messages of the library itself stay off stderr.
template <typename Proto>
absl::Status Parse(io::ZeroCopyInputStream& stream, std::string_view what, Proto& proto) {
  io::CodedInputStream coded(&stream);
  coded.SetTotalBytesLimit(static_cast<int>(kProtobufLimit));
  coded.SetRecursionLimit(kMaxNesting);
  if (!proto.ParseFromCodedStream(&coded) || !coded.ConsumedEntireMessage()) {
    return InvalidArgument("not {}, or damaged or truncated", what);
  }
  return absl::OkStatus();
}

template <typename Proto>
absl::Status ParseFrom(const CondensedModel& pieces, const ByteSource& source,
                       std::string_view what, Proto& proto) {
  CondensedStream stream(pieces, source);
  const absl::Status parsed = Parse(stream, what, proto);
  OCTET_RETURN_IF_ERROR(stream.status());
  return parsed;
}

absl::StatusOr<Graph> ReadModel(const ByteSource& source, const ReadOptions& options,
                                ExternalDataReader* external) {
  OCTET_RETURN_IF_ERROR(CheckSize(source.bytes(), options.max_file_bytes));
  onnx::ModelProto model;
  const CondensedModel condensed = Condense(source);
  OCTET_RETURN_IF_ERROR(ParseFrom(condensed, source, "an ONNX model", model));
  if (!model.has_graph()) return InvalidArgument("no graph: not an ONNX model");
  TensorReader tensors(options.max_tensor_bytes, external, &source);
  return GraphFromModel(model, tensors, condensed.left_out);
}

// Ranges of bytes beside the model, by file and offset: the length of each.
using RangesBeside = std::map<std::pair<std::string, uint64_t>, uint64_t>;

absl::Status AddRange(const onnx::TensorProto& proto, RangesBeside& ranges) {
  if (proto.data_location() != onnx::TensorProto::EXTERNAL) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const ExternalRange range, ExternalRangeOf(proto));
  uint64_t bytes = range.length.value_or(0);
  if (!range.length) {
    OCTET_RETURN_IF_ERROR(DTypeFromOnnx(proto.data_type()).status());
    const auto elements =
        CheckedElements({proto.dims().data(), static_cast<size_t>(proto.dims_size())});
    if (!elements) return InvalidArgument("tensor '{}': impossible shape", proto.name());
    bytes = FileBytes(proto.data_type(), *elements);
  }
  uint64_t& length = ranges[{range.location, range.offset}];
  length = std::max(length, bytes);
  return absl::OkStatus();
}

// Of a graph, or of a function, which has no initializers.
template <typename Proto>
absl::Status AddRanges(const Proto& proto, RangesBeside& ranges) {
  if constexpr (requires { proto.initializer(); }) {
    for (const onnx::TensorProto& tensor : proto.initializer())
      OCTET_RETURN_IF_ERROR(AddRange(tensor, ranges));
  }
  for (const onnx::NodeProto& node : proto.node()) {
    for (const onnx::AttributeProto& attribute : node.attribute()) {
      if (attribute.has_t()) OCTET_RETURN_IF_ERROR(AddRange(attribute.t(), ranges));
      if (attribute.has_g()) OCTET_RETURN_IF_ERROR(AddRanges(attribute.g(), ranges));
    }
  }
  return absl::OkStatus();
}

// Runs `read`; its errors are prefixed with the origin, and running out of memory is one of them.
template <typename Fn>
auto Guarded(std::string_view origin, const Fn& read) -> decltype(read()) {
  try {
    auto result = read();
    if (!result.ok()) return Annotate(result.status(), origin);
    return result;
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, "{}: out of memory", origin);
  } catch (const std::exception& e) {
    return Internal("{}: {}", origin, e.what());
  }
}

absl::StatusOr<Datum> ReadSequence(onnx::SequenceProto& proto, TensorReader& tensors) {
  std::vector<Tensor> elements;
  if (proto.elem_type() != onnx::SequenceProto::TENSOR && proto.tensor_values().empty() &&
      proto.elem_type() != onnx::SequenceProto::UNDEFINED) {
    return Unimplemented("unsupported sequence: its elements are no tensors");
  }
  for (onnx::TensorProto& element : *proto.mutable_tensor_values()) {
    OCTET_ASSIGN_OR_RETURN(Tensor tensor, tensors.Read(element));
    elements.push_back(std::move(tensor));
  }
  return Datum::Sequence(std::move(elements));
}

absl::StatusOr<Datum> ReadOptional(onnx::OptionalProto& proto, TensorReader& tensors) {
  switch (proto.elem_type()) {
    case onnx::OptionalProto::UNDEFINED:
      return Datum();
    case onnx::OptionalProto::TENSOR: {
      if (!proto.has_tensor_value()) return Datum();
      OCTET_ASSIGN_OR_RETURN(Tensor tensor, tensors.Read(*proto.mutable_tensor_value()));
      return Datum::Of(std::move(tensor));
    }
    case onnx::OptionalProto::SEQUENCE:
      if (!proto.has_sequence_value()) return Datum();
      return ReadSequence(*proto.mutable_sequence_value(), tensors);
    default:
      return Unimplemented("unsupported optional: neither of a tensor nor of a sequence");
  }
}

}  // namespace

absl::StatusOr<Graph> ReadOnnxFile(const std::string& path, const ReadOptions& options,
                                   std::vector<SourceFile>* files) {
  return Guarded(path, [&]() -> absl::StatusOr<Graph> {
    OCTET_ASSIGN_OR_RETURN(const OpenFile file, OpenFile::Open(path));
    ExternalDataReader external(path);
    OCTET_ASSIGN_OR_RETURN(Graph graph, ReadModel(file, options, &external));
    if (files != nullptr) {
      *files = external.Stamps();
      files->insert(files->begin(), SourceFile{path, file.stamp()});
    }
    return graph;
  });
}

absl::Status CheckUnchanged(std::span<const SourceFile> files) {
  for (const SourceFile& before : files) {
    const absl::StatusOr<OpenFile> now = OpenFile::Open(before.path);
    if (absl::IsResourceExhausted(now.status())) return now.status();
    if (!now.ok())
      return absl::FailedPreconditionError(
          Format("file cannot be read any more: {}", Message(now.status())));
    if (now->stamp() != before.stamp)
      return absl::FailedPreconditionError(
          Format("file changed since it was read: '{}'", before.path));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> OnnxFileBytes(const std::string& path) {
  return Guarded(path, [&]() -> absl::StatusOr<uint64_t> {
    OCTET_ASSIGN_OR_RETURN(const OpenFile file, OpenFile::Open(path));
    onnx::ModelProto model;
    OCTET_RETURN_IF_ERROR(ParseFrom(Condense(file), file, "an ONNX model", model));
    RangesBeside ranges;
    OCTET_RETURN_IF_ERROR(AddRanges(model.graph(), ranges));
    for (const onnx::FunctionProto& function : model.functions())
      OCTET_RETURN_IF_ERROR(AddRanges(function, ranges));
    uint64_t bytes = file.bytes();
    for (const auto& [unused, length] : ranges) bytes += length;
    return bytes;
  });
}

absl::StatusOr<Graph> ReadOnnxBytes(std::span<const std::byte> bytes, std::string_view origin,
                                    const ReadOptions& options) {
  return Guarded(origin, [&] { return ReadModel(MemorySource(bytes), options, nullptr); });
}

absl::StatusOr<NamedTensor> ReadTensorFile(const std::string& path) {
  return Guarded(path, [&]() -> absl::StatusOr<NamedTensor> {
    OCTET_ASSIGN_OR_RETURN(const OpenFile file, OpenFile::Open(path));
    OCTET_RETURN_IF_ERROR(CheckSize(file.bytes(), kProtobufLimit));
    onnx::TensorProto proto;
    OCTET_RETURN_IF_ERROR(ParseFrom(CondensedModel::Whole(file), file, "a tensor", proto));
    TensorReader tensors(kProtobufLimit, nullptr);
    NamedTensor result;
    OCTET_ASSIGN_OR_RETURN(result.tensor, tensors.Read(proto));
    result.name = proto.name();
    return result;
  });
}

absl::StatusOr<Datum> ReadDatumFile(const std::string& path, ValueKind kind) {
  if (kind == ValueKind::kTensor) {
    OCTET_ASSIGN_OR_RETURN(NamedTensor read, ReadTensorFile(path));
    return Datum::Of(std::move(read.tensor));
  }
  return Guarded(path, [&]() -> absl::StatusOr<Datum> {
    OCTET_ASSIGN_OR_RETURN(const OpenFile file, OpenFile::Open(path));
    OCTET_RETURN_IF_ERROR(CheckSize(file.bytes(), kProtobufLimit));
    TensorReader tensors(kProtobufLimit, nullptr);
    if (kind == ValueKind::kSequence) {
      onnx::SequenceProto proto;
      OCTET_RETURN_IF_ERROR(ParseFrom(CondensedModel::Whole(file), file, "a sequence", proto));
      return ReadSequence(proto, tensors);
    }
    onnx::OptionalProto proto;
    OCTET_RETURN_IF_ERROR(ParseFrom(CondensedModel::Whole(file), file, "an optional", proto));
    return ReadOptional(proto, tensors);
  });
}

}  // namespace octet
