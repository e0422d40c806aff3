// WriteOnnxFile, WriteOnnxBytes: Graph -> ModelProto.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <onnx/onnx_pb.h>

#include "engine/onnx/attribute_proto.h"
#include "engine/onnx/external_data.h"
#include "engine/onnx/onnx_file.h"
#include "engine/onnx/tensor_proto.h"
#include "engine/onnx/value_info.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Room below protobuf's 2 GiB for everything that is not the elements of tensors.
constexpr uint64_t kMaxTensorBytes = std::numeric_limits<int>::max() - (uint64_t{64} << 20);

// The oldest IR version that knows every type of this opset's operators. Source: ONNX, Versioning.md.
int64_t IrVersionFor(int opset) { return opset >= 21 ? 10 : opset >= 19 ? 9 : 8; }

class ModelWriter {
 public:
  explicit ModelWriter(const Graph& graph) : graph_(graph) {}

  absl::StatusOr<onnx::ModelProto> Write() {
    OCTET_RETURN_IF_ERROR(CheckValues());
    OCTET_RETURN_IF_ERROR(WriteOpsets());
    onnx::GraphProto& proto = *model_.mutable_graph();
    proto.set_name(graph_.name.empty() ? "graph" : graph_.name);
    for (const ValueId id : graph_.inputs) WriteValueInfo(graph_.value(id), *proto.add_input());
    for (const ValueId id : graph_.outputs) WriteValueInfo(graph_.value(id), *proto.add_output());
    for (ValueId id = 0; id < graph_.value_count(); ++id) WriteValue(id, proto);
    for (const NodeId id : graph_.order()) WriteNode(graph_.node(id), *proto.add_node());
    for (const auto& [key, value] : graph_.metadata) {
      onnx::StringStringEntryProto& entry = *model_.add_metadata_props();
      entry.set_key(key);
      entry.set_value(value);
    }
    return std::move(model_);
  }

 private:
  // True for what nodes or the interface refer to; rewrites leave values behind that nobody does.
  bool InUse(ValueId id) const {
    return graph_.producer(id) != kNone || !graph_.consumers(id).empty() ||
           graph_.is_graph_input(id) || graph_.is_graph_output(id);
  }

  absl::Status CheckValues() const {
    std::set<std::string_view> names;
    uint64_t bytes = 0;
    for (ValueId id = 0; id < graph_.value_count(); ++id) {
      if (!InUse(id)) continue;
      const Value& value = graph_.value(id);
      if (value.name.empty()) return InvalidArgument("a value without a name cannot be written");
      if (!names.insert(value.name).second) {
        return InvalidArgument("two values of one name cannot be written: '{}'", value.name);
      }
      if (value.quant) {
        return InvalidArgument("ONNX has no typed int8 values: '{}' needs Q/DQ nodes", value.name);
      }
      if (value.is_constant()) bytes += value.constant.bytes();
    }
    if (bytes > kMaxTensorBytes) {
      return MakeError(absl::StatusCode::kResourceExhausted,
                       "initializers do not fit an ONNX file: at most {} bytes, got {}",
                       kMaxTensorBytes, bytes);
    }
    return absl::OkStatus();
  }

  absl::Status WriteOpsets() {
    std::map<std::string_view, const Node*> first;
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      if (node.domain == kOctetDomain) {
        return InvalidArgument("ONNX has no such operator: {}", Describe(node));
      }
      if (!node.post_ops.empty()) {
        return InvalidArgument("ONNX has no post-ops: {}", Describe(node));
      }
      const auto [at, added] = first.emplace(node.domain, &node);
      if (!added && at->second->version != node.version) {
        return InvalidArgument("two opsets of one domain cannot be written: {} and {}",
                               Describe(*at->second), Describe(node));
      }
    }
    const auto onnx = first.find(kOnnxDomain);
    const int opset = onnx == first.end() ? kMaxOpset : onnx->second->version;
    AddImport(kOnnxDomain, opset);
    for (const auto& [domain, node] : first) {
      if (domain != kOnnxDomain) AddImport(domain, node->version);
    }
    model_.set_ir_version(IrVersionFor(opset));
    model_.set_producer_name("octet");
    return absl::OkStatus();
  }

  void AddImport(std::string_view domain, int version) {
    onnx::OperatorSetIdProto& import = *model_.add_opset_import();
    import.set_domain(std::string(domain));
    import.set_version(version);
  }

  void WriteValue(ValueId id, onnx::GraphProto& proto) const {
    const Value& value = graph_.value(id);
    if (!InUse(id)) return;
    if (value.is_constant()) {
      onnx::TensorProto& tensor = *proto.add_initializer();
      tensor.set_name(value.name);
      WriteTensor(value.constant, tensor);
    } else if (value.dtype != DType::kUndefined && !graph_.is_graph_input(id) &&
               !graph_.is_graph_output(id)) {
      WriteValueInfo(value, *proto.add_value_info());
    }
  }

  void WriteNode(const Node& node, onnx::NodeProto& proto) const {
    proto.set_name(node.name);
    proto.set_op_type(node.op);
    if (!node.domain.empty()) proto.set_domain(node.domain);
    const auto name = [&](ValueId id) { return id == kNone ? "" : graph_.value(id).name; };
    for (const ValueId id : node.inputs) proto.add_input(name(id));
    for (const ValueId id : node.outputs) proto.add_output(name(id));
    for (const auto& [key, value] : node.attributes) {
      WriteAttribute(key, value, *proto.add_attribute());
    }
  }

  const Graph& graph_;
  onnx::ModelProto model_;
};

absl::Status SystemError(std::string_view action, const std::string& path, int error) {
  const std::string reason = std::generic_category().message(error);
  if (error == ENOENT || error == ENOTDIR)
    return NotFound("cannot {} {}: {}", action, path, reason);
  if (error == ENOSPC || error == EDQUOT) {
    return MakeError(absl::StatusCode::kResourceExhausted, "cannot {} {}: {}", action, path,
                     reason);
  }
  return InvalidArgument("cannot {} {}: {}", action, path, reason);
}

// A new file beside `path` that takes its place when committed, and disappears otherwise.
class PendingFile {
 public:
  explicit PendingFile(std::string path) : path_(std::move(path)) {}
  ~PendingFile() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  absl::Status Open() {
    // Another process may write the same model: take the first free name.
    for (int attempt = 0; temporary_.empty(); ++attempt) {
      std::string name = Format("{}.{}-{}.tmp", path_, ::getpid(), attempt);
      const int fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd < 0 && errno == EEXIST && attempt < 1000) continue;
      if (fd < 0) return SystemError("create", name, errno);
      file_ = OpenFile(fd, 0);
      temporary_ = std::move(name);
    }
    return absl::OkStatus();
  }
  int fd() const { return file_.fd(); }

  absl::Status Commit() {
    if (::fsync(fd()) != 0) return SystemError("write", temporary_, errno);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
      return SystemError("write", path_, errno);
    }
    temporary_.clear();
    return SyncFolder();
  }

 private:
  // Until the folder is on disk too, a power cut may bring the old file back.
  absl::Status SyncFolder() const {
    const std::filesystem::path parent = std::filesystem::path(path_).parent_path();
    const std::string folder = parent.empty() ? "." : parent.string();
    const OpenFile open(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0);
    if (open.fd() < 0 || ::fsync(open.fd()) != 0) return SystemError("write", folder, errno);
    return absl::OkStatus();
  }

  std::string path_;
  std::string temporary_;
  OpenFile file_;
};

absl::Status WriteModel(const onnx::ModelProto& model, const std::string& path) {
  PendingFile file(path);
  OCTET_RETURN_IF_ERROR(file.Open());
  google::protobuf::io::FileOutputStream stream(file.fd());
  const bool written = model.SerializeToZeroCopyStream(&stream) && stream.Flush();
  if (!written) return SystemError("write", path, stream.GetErrno());
  return file.Commit();
}

}  // namespace

absl::Status WriteOnnxFile(const Graph& graph, const std::string& path) {
  try {
    OCTET_ASSIGN_OR_RETURN(const onnx::ModelProto model, ModelWriter(graph).Write());
    return WriteModel(model, path);
  } catch (const std::exception& e) {
    return MakeError(absl::StatusCode::kResourceExhausted, "cannot write {}: {}", path, e.what());
  }
}

absl::StatusOr<std::string> WriteOnnxBytes(const Graph& graph) {
  try {
    OCTET_ASSIGN_OR_RETURN(const onnx::ModelProto model, ModelWriter(graph).Write());
    return model.SerializeAsString();
  } catch (const std::exception& e) {
    return MakeError(absl::StatusCode::kResourceExhausted, "cannot write a model: {}", e.what());
  }
}

}  // namespace octet
